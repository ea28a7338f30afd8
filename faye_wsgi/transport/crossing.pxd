# The types of crossing.py, for Cython: see docs/architecture.md.


cdef class Crossing:
    cdef public object _guard, _hub, handed_over, jobs
