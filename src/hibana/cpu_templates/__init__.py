"""CHAPTER 7c: CPU templates. The guest's CPUs, made to look like others.

A fleet of hosts with different CPUs can give all its guests the same one, if it hides what not every host has. A
template says which bits of CPUID and of MSRs to clear or to set. What enters: the template that the user wrote
(`config/cpu.py`), or the name of one that comes with Hibana; what leaves is what an engine wants to know of it
(`engine.interface.CpuTemplate`).

`merge.py` applies a template to what KVM offers. `static.py` gives the templates that have names, whose content is in
the JSON files beside it in the form of api.md §3.14, and says on which CPUs each of them may be used. `render.py` is
the way back, from CPUID and MSRs to a template, for `cpu-template-helper`.

An underscore between every four bits makes bitmaps readable: `x` keeps a bit, `0` clears and `1` sets it.
"""
