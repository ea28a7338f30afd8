# The types of closing.py, for Cython: see docs/architecture.md.


cdef class Closing:
    cdef object __weakref__
    cdef public object _connection, close_event, error_event, life, own_close, phase
    cdef public bint is_hurried, peer_has_ended
