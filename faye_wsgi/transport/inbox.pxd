# The types of inbox.py, for Cython: see docs/architecture.md.

import cython


cdef class Backlog:
    cdef public Py_ssize_t _bytes, _count, _max_bytes, _max_count, arriving
    cdef public bint _is_full, is_awaited
    cdef public object _relieved

    @cython.locals(text=str)
    cpdef Py_ssize_t size_of(self, message) except -1
    cpdef add(self, Py_ssize_t size)
    cpdef remove(self, Py_ssize_t size)
    cpdef bint check_full(self) except -1


cdef class Inbox:
    cdef public object _connection, _hub, _messages, _next_waiters, _switch, _waiter
    cdef public Backlog _backlog
    cdef public bint _ended, _serving

    cpdef bint hand_over(self, item) except -1
    cpdef put(self, message)
    cpdef deliver(self)
    cpdef _pop_message(self)
