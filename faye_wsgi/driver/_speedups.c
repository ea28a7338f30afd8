/* Optional accelerants for faye_wsgi.driver: pure functions, each with a Python twin
 * under the same tests. Nothing here keeps state or knows the protocol's rules. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

PyDoc_STRVAR(mask_doc,
"mask(data, key)\n--\n\n"
"Mask or unmask data (any length) with a key of 4 bytes, starting at key[0].");

static void
mask_bytes(unsigned char *out, const unsigned char *in, Py_ssize_t size,
           const unsigned char *key)
{
    uint32_t key32;
    uint64_t key64, word;
    Py_ssize_t i = 0;

    memcpy(&key32, key, 4);
    memcpy(&key64, key, 4);
    memcpy((unsigned char *)&key64 + 4, &key32, 4);
    /* memcpy keeps unaligned access defined; compilers turn the loop into vector code. */
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, in + i, 8);
        word ^= key64;
        memcpy(out + i, &word, 8);
    }
    for (; i < size; i++)
        out[i] = in[i] ^ key[i & 3];
}

static PyObject *
speedups_mask(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_buffer data, key;
    PyObject *result = NULL;

    (void)module;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "mask() takes exactly 2 arguments");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    if (PyObject_GetBuffer(args[1], &key, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&data);
        return NULL;
    }
    if (key.len != 4)
        PyErr_SetString(PyExc_ValueError, "a masking key has 4 bytes");
    else if ((result = PyBytes_FromStringAndSize(NULL, data.len)) != NULL)
        mask_bytes((unsigned char *)PyBytes_AS_STRING(result), data.buf, data.len, key.buf);
    PyBuffer_Release(&key);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"mask", (PyCFunction)(void (*)(void))speedups_mask, METH_FASTCALL, mask_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_speedups", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModule_Create(&module);
}
