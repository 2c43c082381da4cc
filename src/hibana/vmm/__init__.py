"""CHAPTER 4: who decides.

What was asked for (chapter 3) enters; a running microVM leaves. `verbs.py` says which verb is legal when, and
`controller.py` who carries it out: `preboot.py` before the start, `running.py` after it. `assemble.py` puts engine,
memory, devices and host ends together (and is the only file that knows them all), `machine.py` is the result,
`vcpu_thread.py` the threads on which its guest runs. Read `assemble.py` first: it tells the life of a microVM up to its
first instruction. The next chapter is `memory`.
"""
