# The types of base.py, for Cython: see docs/architecture.md.


cdef class Driver:
    cdef public object protocol, state
    cdef public bint _ended, is_tired, is_unpacking
    cdef public Py_ssize_t max_work, unfinished

    cpdef list receive_data(self, bytes data, room=*)
    cpdef bytes message(self, message)
    cpdef bytes shared_message(self, message, dict shared)
