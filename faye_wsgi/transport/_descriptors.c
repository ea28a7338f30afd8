/* recv and send on a descriptor, which never block.

   Without this module transport/stream.py uses the methods of socket.socket, which do the same.
   These are faster: they take no timeout into account, and do not release the GIL, because a
   call with MSG_DONTWAIT returns at once. Each is made for one descriptor, which is its __self__:
   calling it costs less than a functools.partial, and it takes less memory.

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
"recv(size)\n--\n\nRead once, at most size bytes; b'' at the end. OSError.");

/* Small reads go through one buffer, which stays in the processor's caches. All threads share it:
   that is safe only because the GIL is held from recv to the copy. */
static char buffer[65536];

static PyObject *
descriptor_recv(PyObject *descriptor, PyObject *wanted)
{
    Py_ssize_t size = PyLong_AsSsize_t(wanted), got;
    int fd = (int)PyLong_AsLong(descriptor);
    PyObject *data;

    if (PyErr_Occurred())
        return NULL;
    if (size < 0) {
        PyErr_SetString(PyExc_ValueError, "a size is not negative");
        return NULL;
    }
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
"send(data)\n--\n\nHow many bytes of data the kernel takes now. OSError.");

static PyObject *
descriptor_send(PyObject *descriptor, PyObject *bytes)
{
    Py_buffer data;
    Py_ssize_t sent;
    int fd = (int)PyLong_AsLong(descriptor);

    if (PyObject_GetBuffer(bytes, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    sent = send(fd, data.buf, (size_t)data.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    PyBuffer_Release(&data);
    return sent < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(sent);
}

static PyMethodDef recv_method = {"recv", descriptor_recv, METH_O, recv_doc};
static PyMethodDef send_method = {"send", descriptor_send, METH_O, send_doc};

PyDoc_STRVAR(recv_and_send_doc,
"recv_and_send(fd)\n--\n\nThe functions recv and send of a descriptor; fd is an int, else TypeError.");

static PyObject *
recv_and_send(PyObject *module, PyObject *descriptor)
{
    PyObject *recv, *send;

    (void)module;
    if (!PyLong_Check(descriptor)) {
        PyErr_SetString(PyExc_TypeError, "a descriptor is an int");
        return NULL;
    }
    if ((recv = PyCFunction_New(&recv_method, descriptor)) == NULL)
        return NULL;
    if ((send = PyCFunction_New(&send_method, descriptor)) == NULL) {
        Py_DECREF(recv);
        return NULL;
    }
    return Py_BuildValue("(NN)", recv, send);
}

static PyMethodDef methods[] = {
    {"recv_and_send", recv_and_send, METH_O, recv_and_send_doc},
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
