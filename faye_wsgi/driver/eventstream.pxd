# The types of eventstream.py, for Cython: see docs/architecture.md.

from faye_wsgi.driver.base cimport Driver


cdef class EventStream(Driver):
    cdef object _retry

    cpdef bytes message(self, message)
