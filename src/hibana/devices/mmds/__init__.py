"""The metadata service inside the network device, without any I/O of its own.

Ethernet frames of the guest's enter and answers leave, once that part is written; now there is the data alone, in
`store.py`, which the API fills.
"""
