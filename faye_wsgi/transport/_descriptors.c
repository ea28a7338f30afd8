/* recv and send on a descriptor, which never block.

   Without this module transport/stream.py uses the methods of socket.socket, which do the same.
   These are faster: they take no timeout into account, and do not release the GIL, because a
   call with MSG_DONTWAIT returns at once.

   The danger is the descriptor. It is a number, and nothing here knows whether it is still open,
   or belongs to another socket by now. Stream._drop replaces both functions before the socket is
   closed; after that they must not be called with this number again. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* Python ignores SIGPIPE */
#endif

PyDoc_STRVAR(recv_doc,
"recv(fd, size)\n--\n\nRead once, at most size bytes; b'' at the end. OSError.");

/* Small reads go through one buffer, which stays in the processor's caches. All threads share it:
   that is safe only because the GIL is held from recv to the copy. */
static char buffer[65536];

static PyObject *
descriptors_recv(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t size, got;
    int fd;
    PyObject *data;

    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "recv() takes a descriptor and a size");
        return NULL;
    }
    fd = (int)PyLong_AsLong(args[0]);
    size = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred())
        return NULL;
    if (size <= (Py_ssize_t)sizeof(buffer)) {
        got = recv(fd, buffer, (size_t)size, MSG_DONTWAIT);
        return got < 0 ? PyErr_SetFromErrno(PyExc_OSError)
                       : PyBytes_FromStringAndSize(buffer, got);
    }
    if ((data = PyBytes_FromStringAndSize(NULL, size)) == NULL)
        return NULL;
    got = recv(fd, PyBytes_AS_STRING(data), (size_t)size, MSG_DONTWAIT);
    if (got < 0) {
        Py_DECREF(data);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    _PyBytes_Resize(&data, got);
    return data;
}

PyDoc_STRVAR(send_doc,
"send(fd, data)\n--\n\nHow many bytes of data the kernel takes now. OSError.");

static PyObject *
descriptors_send(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer data;
    Py_ssize_t sent;
    int fd;

    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "send() takes a descriptor and bytes");
        return NULL;
    }
    fd = (int)PyLong_AsLong(args[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    sent = send(fd, data.buf, (size_t)data.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    PyBuffer_Release(&data);
    return sent < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(sent);
}

static PyMethodDef methods[] = {
    {"recv", (PyCFunction)(void (*)(void))descriptors_recv, METH_FASTCALL, recv_doc},
    {"send", (PyCFunction)(void (*)(void))descriptors_send, METH_FASTCALL, send_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_descriptors", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__descriptors(void)
{
    return PyModule_Create(&module);
}
