// The operators' schemas, the same for all compiled backends, and the Python module that loads them. `kernel` names a
// neuron with its settings; `values` are its constants, of which those numbered `which` are tensors instead.
// `sequences` are the numbers of states whose values after every step are wanted.
#include <Python.h>
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(stdano, m) {
  m.def(
      "scan_forward(Tensor x, Tensor[] state, Tensor[] constants, Tensor? affine, int[] which, float[] values, "
      "float alpha, str kernel, bool save_checkpoints, bool return_state, int[] sequences)"
      " -> (Tensor spikes, Tensor[] state, Tensor[] sequences, Tensor checkpoints)");
  m.def(
      "scan_backward(Tensor grad_spikes, Tensor[] grad_state, Tensor[] grad_sequences, Tensor x, Tensor[] state, "
      "Tensor checkpoints, Tensor[] constants, Tensor? affine, int[] which, float[] values, float alpha, str kernel, "
      "int[] sequences) -> (Tensor grad_x, Tensor[] grad_state, Tensor[] grad_constants, Tensor affine_sums)");
  m.def("super_neuron_encode(Tensor x, str[] kernels, float[] values, float alpha) -> (Tensor codes, Tensor counts)");
  m.def("super_neuron_decode(Tensor codes, Tensor table, Tensor like) -> Tensor");
  m.def("super_neuron_sums(Tensor codes, Tensor grad, int members) -> Tensor");
  m.def(
      "super_neuron_backward(Tensor grad, Tensor x, Tensor codes, Tensor table, str[] kernels, float[] values, "
      "float alpha) -> Tensor");
  m.def("channel_sums(Tensor x) -> Tensor");
  m.def("channel_affine(Tensor grad, Tensor x, Tensor table) -> Tensor");
  m.def("channel_affine_(Tensor(a!) grad, Tensor x, Tensor table) -> ()");
  m.def("cpu_capability(str? level=None) -> str");
  m.def("has_kernel(str name, bool double) -> bool");
  m.def("add_kernels(int table) -> ()");
}

PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
