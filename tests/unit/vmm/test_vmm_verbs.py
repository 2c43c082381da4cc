"""Legality and wrapping."""

import pytest

from hibana.errors import (
    ActionError,
    BalloonError,
    GuestFault,
    InternalVmmError,
    MmdsDoesNotFit,
    MmdsLimitError,
    MmdsNotInitialized,
    NoBalloon,
    NotAfterStart,
    NotBeforeStart,
)
from hibana.vmm.verbs import RULES, Call, perform


class Actor:
    """Somebody whose every verb ends the same way."""

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome

    def __getattr__(self, verb: str) -> object:
        def act(*arguments: object) -> object:
            if isinstance(self.outcome, Exception):
                raise self.outcome
            return (verb, *arguments)

        return act


def test_a_call_reaches_the_method_of_its_name() -> None:
    assert perform(Actor(None), Call("put_mmds", (None,)), started=True) == ("put_mmds", None)
    assert perform(Actor(None), Call("get_version"), started=False) == ("get_version",)


@pytest.mark.parametrize("verb", RULES)
def test_a_verb_is_carried_out_or_refused_by_the_table(verb: str) -> None:
    for started, wrapper, refusal in (
        (False, RULES[verb].before, NotBeforeStart),
        (True, RULES[verb].after, NotAfterStart),
    ):
        if wrapper is None:
            with pytest.raises(refusal):
                perform(Actor(None), Call(verb), started)
        else:
            assert perform(Actor(None), Call(verb), started) == (verb,)


def test_the_same_failure_has_other_words_after_the_start() -> None:
    for started, wrapper in ((False, BalloonError), (True, InternalVmmError)):
        with pytest.raises(wrapper) as failure:
            perform(Actor(NoBalloon()), Call("get_balloon"), started)
        assert str(failure.value) == wrapper.text.format(cause="No balloon device found.")


def test_a_failure_that_is_complete_is_not_wrapped_again() -> None:
    complete = NotAfterStart()
    with pytest.raises(ActionError) as failure:
        perform(Actor(complete), Call("put_drive"), started=True)
    assert failure.value is complete


def test_metadata_that_does_not_fit_has_a_wrapper_of_its_own() -> None:
    with pytest.raises(MmdsLimitError):
        perform(Actor(MmdsDoesNotFit()), Call("put_mmds", ({},)), started=True)
    with pytest.raises(ActionError, match=r"^MMDS error: The MMDS data store is not initialized\.$"):
        perform(Actor(MmdsNotInitialized()), Call("patch_mmds", ({},)), started=True)


def test_what_is_nobodys_configuration_is_not_hidden() -> None:
    with pytest.raises(GuestFault):
        perform(Actor(GuestFault()), Call("get_version"), started=True)
