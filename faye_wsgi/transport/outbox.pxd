# The types of outbox.py, for Cython: see docs/architecture.md.

from faye_wsgi.driver.base cimport Driver
from faye_wsgi.transport.crossing cimport Crossing
from faye_wsgi.transport.stream cimport Stream

cdef Py_ssize_t LARGE


cdef class Outbox:
    cdef public object _connection, _deferred, _fragments, _high_water, _hub
    cdef public object _thread, _turned_at, _unsent
    cdef public Driver _plain
    cdef public Crossing _crossing
    cdef public Stream _stream
    cdef public bint _is_alone
    cdef public Py_ssize_t sent
