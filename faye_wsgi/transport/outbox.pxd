# The types of outbox.py, for Cython: see docs/architecture.md.

from faye_wsgi.transport.stream cimport Stream

cdef Py_ssize_t LARGE


cdef class Outbox:
    cdef public object _build, _crossed, _crossing, _deferred, _fragments, _handed_over, _high_water
    cdef public object _hub, _owner, _plain, _thread, _turned_at, _unsent, _waiting
    cdef public object _waiting_elsewhere
    cdef public Stream _stream
    cdef public bint is_alone
