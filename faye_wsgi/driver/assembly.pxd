# The types of assembly.py, for Cython: see docs/architecture.md.

cdef Py_ssize_t LARGE_PIECE
cdef int _FIN, _TEXT


cdef class Assembly:
    cdef public int first, opcode
    cdef public bint fin
    cdef public Py_ssize_t frames, stored
    cdef public long long remaining
    cdef public bytes _key
    cdef public list _frame, _payload
    cdef public object _validator

    cpdef begin_frame(self, int first, long long length, bytes key)
    cpdef bint add(self, bytes piece) except -1
    cpdef bytes payload(self)
    cdef bytes _unmask(self, bytes piece)
    cdef _store(self, bytes piece)
    cdef _end_frame(self)
