# The types of stream.py, for Cython: see docs/architecture.md.

cdef Py_ssize_t GATHER, LARGE, TURN, TURN_BYTES, TURN_PIECES


cdef class Batch:
    cdef public bint is_open
    cdef public Py_ssize_t turn
    cdef public list written

    cpdef flush(self)


cdef class Stream:
    cdef public object _data_received, _loop, _reader, _receiver, _recv, _send, _socket, _writer, read_size
    cdef public Batch batch
    cdef public list _gathered, _waiting
    cdef public Py_ssize_t _gathered_size, bytes_out, waiting_size
    cdef public bint _may_pend, _reading, broken, closed

    cpdef receive(self, bytes data)
    cpdef bint write(self, data) except -1
    cpdef flush(self)
    cpdef _keep(self, data, Py_ssize_t start)
