"""CHAPTER 2: what is asked.

Bytes enter through a unix socket; calls of the controller's verbs leave, and answers come back the same way. Read
`http.py` first: bytes to requests, responses to bytes, and no socket in sight. `listen.py` opens the socket before
anything else is even imported, `server.py` serves it, `endpoints.py` and `routes.py` find out what a request means, and
`faults.py` says what is wrong with it. The next chapter is `config`.
"""
