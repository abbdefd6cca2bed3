// The operators' schemas, the same for all compiled backends, and the Python module that loads them.
#include <Python.h>
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(stdano, m) {
#include "schemas.h"
  m.def("cpu_capability(str? level=None) -> str");
  m.def("has_kernel(str name, bool double) -> bool");
  m.def("add_kernels(int table) -> ()");
}

PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
