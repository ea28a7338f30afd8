# The types of events.py, for Cython: see docs/architecture.md.


cdef class Event:
    cdef public object target


cdef class MessageEvent(Event):
    cdef public object data
