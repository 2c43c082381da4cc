"""The command line: where additions go, how long it may get, what may stand in it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hibana.boot.cmdline import Cmdline
from hibana.errors import CmdlineCapacity, CmdlineNotPrintable, CmdlineNul, CmdlineOnlyInitArgs, CmdlineTooLong


def test_additions_follow_in_order() -> None:
    cmdline = Cmdline("console=ttyS0")
    for item in ("pci=off", "root=/dev/vda", "ro", "virtio_mmio.device=4K@0xc0001000:5"):
        cmdline.append(item)
    line = "console=ttyS0 pci=off root=/dev/vda ro virtio_mmio.device=4K@0xc0001000:5"
    assert str(cmdline) == line
    assert cmdline.encode() == line.encode() + b"\0"


def test_an_empty_line_consists_of_its_additions() -> None:
    cmdline = Cmdline("")
    assert cmdline.encode() == b"\0"
    cmdline.append("pci=off")
    assert cmdline.encode() == b"pci=off\0"


@pytest.mark.parametrize(
    ("text", "extended"),
    [
        ("a -- b", "a + -- b"),
        ("  a  --  b -- c ", "a + -- b -- c"),
        ('a="x -- y" b -- c', 'a="x -- y" b + -- c'),
        ('a="x -- y -- z', 'a="x -- y -- z +'),
        ("a --b --c", "a --b --c +"),
        ("a -- ", "a +"),
        ("a --", "a -- +"),
        (" -- b", "+ -- b"),
    ],
)
def test_additions_stand_before_the_arguments_of_init(text: str, extended: str) -> None:
    cmdline = Cmdline(text)
    cmdline.append("+")
    assert str(cmdline) == extended


def test_a_line_of_only_init_arguments_is_refused_when_it_is_needed() -> None:
    with pytest.raises(CmdlineOnlyInitArgs, match=r"^Cmdline cannot contain only init args\.$"):
        Cmdline(" -- /bin/sh").encode()


@pytest.mark.parametrize("text", ["x" * 2047, "x" * 1000 + " -- " + "y" * 1043, "é" * 1023, "  " + "x" * 2047 + " "])
def test_a_line_of_2048_bytes_with_its_nul_fits(text: str) -> None:
    line = Cmdline(text).encode()
    assert len(line) in (2047, 2048)


@pytest.mark.parametrize("text", ["x" * 2048, "x" * 1000 + " -- " + "y" * 1044, "é" * 1024])
def test_a_longer_line_is_refused(text: str) -> None:
    with pytest.raises(CmdlineCapacity, match=r"^Invalid cmdline capacity provided\.$"):
        Cmdline(text)


@pytest.mark.parametrize(("text", "room"), [("x" * 2039, 7), ("", 2047), ("x" * 2000 + " -- " + "y" * 35, 7)])
def test_an_addition_may_use_the_last_byte_and_no_more(text: str, room: int) -> None:
    Cmdline(text).append("z" * room)
    with pytest.raises(CmdlineTooLong, match=r"^Inserting string would make command line too long\.$"):
        Cmdline(text).append("z" * (room + 1))


@pytest.mark.parametrize("item", ["a\nb", "a\0b", "a\x7fb", "ä"])
def test_an_addition_must_be_printable_ascii(item: str) -> None:
    with pytest.raises(CmdlineNotPrintable, match=r"^String contains a non-printable ASCII character\.$"):
        Cmdline("").append(item)


def test_what_the_user_wrote_need_not_be_printable() -> None:
    assert Cmdline("a=\x01 b=ä").encode() == b"a=\x01 b=\xc3\xa4\0"


def test_a_nul_would_hide_the_rest_of_the_line() -> None:
    with pytest.raises(CmdlineNul, match=r"^Null terminator detected in the command line structure\.$"):
        Cmdline("a\0b").encode()


WORDS = st.from_regex(r"[a-z=.,]{1,12}( [a-z=.,]{1,12}){0,4}", fullmatch=True)


@given(boot_args=WORDS, init_args=WORDS, items=st.lists(WORDS, max_size=5))
@settings(max_examples=30, deadline=None)
def test_additions_never_reach_init(boot_args: str, init_args: str, items: list[str]) -> None:
    cmdline = Cmdline(f"{boot_args} -- {init_args}")
    for item in items:
        cmdline.append(item)
    assert str(cmdline) == f"{' '.join([boot_args, *items])} -- {init_args}"


@given(text=st.text(st.sampled_from('ab -"é'), max_size=40).map(lambda some: some * 40))
def test_every_line_fits_or_is_refused(text: str) -> None:
    try:
        line = Cmdline(text).encode()
    except (CmdlineCapacity, CmdlineOnlyInitArgs):
        return
    assert len(line) <= 2048
    assert line.count(b"\0") == 1
