# The types of hybi.py, for Cython: see docs/architecture.md.

import cython

from faye_wsgi.driver.assembly cimport Assembly
from faye_wsgi.driver.base cimport Driver

cdef int _FIN, _RSV, _CONTROL, _CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG
cdef Py_ssize_t INFLATED_BYTES, LARGE_MESSAGE, LARGE_PACKED, NO_LIMIT, STEP_WORK, WORK_BYTES


cdef class Hybi(Driver):
    cdef public object _closing, _max_length, _pipeline, _random, _unpacking
    cdef public bint _client, _is_masked
    cdef public bytes _rest
    cdef public list _pongs
    cdef public Assembly _arriving
    cdef public int _rsv_mask
    cdef public Py_ssize_t _max_fragments, _room, _steps, _work

    @cython.locals(pos=Py_ssize_t, size=Py_ssize_t, body=Py_ssize_t, first=int, second=int,
                   length="unsigned long long", minimum="unsigned long long", left="unsigned long long",
                   is_whole=bint, payload=bytes, key=bytes, events=list, arriving=Assembly)
    cpdef list receive_data(self, bytes data, room=*)
    cpdef bytes message(self, message)
    cpdef bytes shared_message(self, message, dict shared)

    @cython.locals(opcode=int)
    cdef _check_header(self, int first, int second)
    @cython.locals(limit="unsigned long long", stored="unsigned long long")
    cdef _check_limits(self, int first, unsigned long long length)
    cdef _receive_message(self, list events, int first, payload)
    cdef _unpack(self, list events)
    cdef _complete(self, list events, int opcode, payload)
    cdef _receive_control(self, list events, int opcode, payload)
    cdef _receive_close(self, list events, payload)
    cdef _receive_piece(self, list events, bytes piece)
    cdef bytes _build(self, int first, payload)
