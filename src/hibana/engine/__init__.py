"""CHAPTER 7: the CPUs; two engines, one interface.

Guest RAM and a bus enter; vCPUs that run leave. Read `interface.py` first: all that the VMM may ask of an engine, and
an engine of the VMM. `state.py` is the language in which CPUs are described, KVM's own. `kvm/` is the engine that
lets the host's CPU run guest code, `soft/` the one that needs no hardware: a translator with everything around it that
a CPU has. The next chapter is `bus`.
"""
