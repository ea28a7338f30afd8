# The types of eventstream.py, for Cython: see docs/architecture.md.

from faye_wsgi.driver.base cimport Driver


cdef class EventStream(Driver):
    cpdef bytes message(self, message)
