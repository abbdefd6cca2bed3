// The operators' schemas, the same for all neurons and all compiled backends, and the Python module that loads them.
// `adapt` is the second state: theta of LLIF, p of SLIF; `rate` its coefficient gamma or beta. LIF ignores both.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <string>

namespace {

const std::string settings =
    "Tensor? tau, Tensor? v_threshold, Tensor? affine, float tau_value, float v_threshold_value, float? v_reset, float rate, "
    "float tau_min, bool linear_decay, bool decay_input, int surrogate, float alpha, bool soft_spike, "
    "bool detach_reset, bool detach_adapt";

const std::string forward =
    "_forward(Tensor x, Tensor? v, Tensor? adapt, " + settings +
    ", bool save_checkpoints, bool return_state, bool return_v_seq)"
    " -> (Tensor spikes, Tensor v, Tensor adapt, Tensor v_seq, Tensor checkpoints)";

const std::string backward =
    "_backward(Tensor grad_spikes, Tensor? grad_v, Tensor? grad_adapt, Tensor? grad_v_seq, Tensor x, Tensor? v, "
    "Tensor? adapt, Tensor checkpoints, " + settings +
    ") -> (Tensor grad_x, Tensor grad_v, Tensor grad_adapt, Tensor grad_tau, Tensor grad_v_threshold, "
    "Tensor affine_sums)";

const std::string super_settings =
    "int neurons, float tau, float v_threshold, float? v_reset, float? slif_v_reset, float gamma, float beta, "
    "float tau_min, bool linear_decay, bool decay_input, int surrogate, float alpha, bool detach_reset, "
    "bool detach_adapt";

}  // namespace

STABLE_TORCH_LIBRARY(stdano, m) {
  for (const std::string neuron : {"lif", "llif", "slif"}) {
    m.def((neuron + forward).c_str());
    m.def((neuron + backward).c_str());
  }
  m.def(("super_neuron_encode(Tensor x, " + super_settings + ") -> (Tensor codes, Tensor counts)").c_str());
  m.def("super_neuron_decode(Tensor codes, Tensor table, Tensor like) -> Tensor");
  m.def("super_neuron_sums(Tensor codes, Tensor grad) -> Tensor");
  m.def(("super_neuron_backward(Tensor grad, Tensor x, Tensor codes, Tensor table, " + super_settings + ") -> Tensor")
            .c_str());
  m.def("channel_sums(Tensor x) -> Tensor");
  m.def("channel_affine(Tensor grad, Tensor x, Tensor table) -> Tensor");
  m.def("channel_affine_(Tensor(a!) grad, Tensor x, Tensor table) -> ()");
  m.def("cpu_capability(str? level=None) -> str");
}

PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
