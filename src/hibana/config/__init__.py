"""CHAPTER 3: what is wanted, one record per resource.

Requests and the configuration file enter as records whose fields are declared in the reference's order (api.md §3);
a notebook of what the microVM shall be leaves. Each file holds one resource: its record, and the checks on it that
need nothing else. Read `machine.py` first, then `drive.py`; `resources.py` is the notebook, which knows the rules
between resources, and `file.py` fills it from a whole-VM JSON file. The next chapter is `vmm`.
"""
