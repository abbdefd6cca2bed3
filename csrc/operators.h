// The operators around a compiled backend's kernels: checks, layouts, allocation. What differs between backends is in
// `Device`: the tensors it serves, its distance between checkpoints, how it runs a call and sums its constants.
#pragma once

#include <tuple>

#include "tensors.h"

namespace stdano {

using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using Six = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

inline Options make_options(Neuron neuron, const Tensor& x, double tau_value, double threshold_value,
                            std::optional<double> v_reset, double rate, double tau_min, bool linear_decay,
                            bool decay_input, int64_t surrogate, double alpha, bool soft_spike, bool detach_reset,
                            bool detach_adapt) {
  STD_TORCH_CHECK(x.dim() >= 1, "stdano: x must have a time dimension");
  STD_TORCH_CHECK(surrogate >= 0 && surrogate < 6, "stdano: surrogate must be an index from 0 to 5");
  return {neuron,         kernel_dtype(x), !v_reset.has_value(),  linear_decay, decay_input, soft_spike, detach_reset,
          detach_adapt,   surrogate,       v_reset.value_or(0.0), rate,         tau_min,     alpha,      tau_value,
          threshold_value};
}

inline MaybeTensor state_with_layout(const MaybeTensor& state, const Tensor& like, const char* name) {
  if (!state.has_value()) return std::nullopt;
  return with_layout_of(*state, like, name);
}

// A tensor of one element beside one for each channel: expanded, so that kernels index both alike.
inline MaybeTensor expand_to(const MaybeTensor& t, int64_t channels) {
  if (!t.has_value() || t->numel() == channels) return t;
  Tensor expanded = torch::stable::new_empty(*t, {channels}, t->scalar_type());
  torch::stable::copy_(expanded, *t);
  return expanded;
}

template <class Device, Neuron neuron>
struct Operators {
  static constexpr bool has_adapt = neuron != Neuron::lif;
  static constexpr const char* adapt_name = neuron == Neuron::llif ? "state.theta" : "state.p";

  static int64_t count_checkpoints(const Geometry& g, const Options& o) {
    return g.T > 0 ? (g.T - 1) / Device::checkpoint_steps(o.dtype) : 0;
  }

  static Five forward(Tensor x, MaybeTensor v, MaybeTensor adapt, MaybeTensor tau, MaybeTensor v_threshold,
                      MaybeTensor affine, double tau_value, double v_threshold_value, std::optional<double> v_reset,
                      double rate, double tau_min, bool linear_decay, bool decay_input, int64_t surrogate,
                      double alpha, bool soft_spike, bool detach_reset, bool detach_adapt, bool save_checkpoints,
                      bool return_state, bool return_v_seq) {
    const typename Device::Guard guard(x);
    ForwardCall call{};
    call.o = make_options(neuron, x, tau_value, v_threshold_value, v_reset, rate, tau_min, linear_decay, decay_input,
                          surrogate, alpha, soft_spike, detach_reset, detach_adapt);
    const int64_t channels = count_channels(x, tau, v_threshold, affine);
    const ScalarType real = compute_dtype(x);
    x = dense(x);
    call.g = make_geometry(x, channels);
    tau = expand_to(tau, call.g.channels);
    v_threshold = expand_to(v_threshold, call.g.channels);

    const bool needs_layout = return_state || v.has_value() || adapt.has_value();
    const Tensor layout = needs_layout ? empty_state(x) : no_tensor(x, real);
    v = state_with_layout(v, layout, "state.v");
    adapt = state_with_layout(adapt, layout, adapt_name);

    Tensor spikes = torch::stable::empty_like(x);
    Tensor v_out = return_state ? layout : no_tensor(x, real);
    Tensor adapt_out = return_state && has_adapt ? torch::stable::empty_like(layout) : no_tensor(x, real);
    Tensor v_seq = return_v_seq ? torch::stable::empty_like(x) : no_tensor(x, x.scalar_type());
    const int64_t saved = save_checkpoints ? count_checkpoints(call.g, call.o) : 0;
    Tensor checkpoints = torch::stable::new_empty(x, {saved, has_adapt ? 2 : 1, call.g.N}, real);

    call.x = x.const_data_ptr();
    call.v0 = data(v);
    call.adapt0 = data(adapt);
    call.tau = data(tau);
    call.threshold = data(v_threshold);
    call.affine = data(affine);
    call.spikes = spikes.mutable_data_ptr();
    call.v = return_state ? v_out.mutable_data_ptr() : nullptr;
    call.adapt = return_state && has_adapt ? adapt_out.mutable_data_ptr() : nullptr;
    call.v_seq = return_v_seq ? v_seq.mutable_data_ptr() : nullptr;
    call.checkpoints = saved > 0 ? checkpoints.mutable_data_ptr() : nullptr;
    Device::forward(call, x);
    return {spikes, v_out, adapt_out, v_seq, checkpoints};
  }

  static Six backward(Tensor grad_spikes, MaybeTensor grad_v, MaybeTensor grad_adapt, MaybeTensor grad_v_seq,
                      Tensor x, MaybeTensor v, MaybeTensor adapt, Tensor checkpoints, MaybeTensor tau,
                      MaybeTensor v_threshold, MaybeTensor affine, double tau_value, double v_threshold_value,
                       std::optional<double> v_reset, double rate, double tau_min, bool linear_decay, bool decay_input,
                       int64_t surrogate, double alpha, bool soft_spike, bool detach_reset, bool detach_adapt) {
    const typename Device::Guard guard(x);
    BackwardCall call{};
    call.o = make_options(neuron, x, tau_value, v_threshold_value, v_reset, rate, tau_min, linear_decay, decay_input,
                          surrogate, alpha, soft_spike, detach_reset, detach_adapt);
    const int64_t channels = count_channels(x, tau, v_threshold, affine);
    const ScalarType real = compute_dtype(x);
    x = dense(x);
    call.g = make_geometry(x, channels);
    const MaybeTensor tau_table = expand_to(tau, call.g.channels);
    const MaybeTensor threshold_table = expand_to(v_threshold, call.g.channels);
    grad_spikes = with_layout_of(grad_spikes, x, "grad_spikes");
    if (grad_v_seq.has_value()) grad_v_seq = with_layout_of(*grad_v_seq, x, "grad_v_seq");
    const bool needs_layout = v.has_value() || adapt.has_value() || grad_v.has_value() || grad_adapt.has_value();
    const Tensor layout = needs_layout ? empty_state(x) : no_tensor(x, real);
    v = state_with_layout(v, layout, "state.v");
    adapt = state_with_layout(adapt, layout, adapt_name);
    grad_v = state_with_layout(grad_v, layout, "grad_v");
    grad_adapt = state_with_layout(grad_adapt, layout, "grad_adapt");
    STD_TORCH_CHECK(checkpoints.numel() == count_checkpoints(call.g, call.o) * (has_adapt ? 2 : 1) * call.g.N &&
                        checkpoints.scalar_type() == real,
                    "stdano: checkpoints must be those that the forward operator returned");

    Tensor grad_x = torch::stable::empty_like(x);
    Tensor grad_v0 = v.has_value() ? torch::stable::empty_like(layout) : no_tensor(x, real);
    Tensor grad_adapt0 = has_adapt && adapt.has_value() ? torch::stable::empty_like(layout) : no_tensor(x, real);

    call.x = x.const_data_ptr();
    call.v0 = data(v);
    call.adapt0 = data(adapt);
    call.tau = data(tau_table);
    call.threshold = data(threshold_table);
    call.affine = data(affine);
    call.checkpoints = checkpoints.const_data_ptr();
    call.grad_spikes = grad_spikes.const_data_ptr();
    call.grad_v = data(grad_v);
    call.grad_adapt = data(grad_adapt);
    call.grad_v_seq = data(grad_v_seq);
    call.grad_x = grad_x.mutable_data_ptr();
    call.grad_v0 = v.has_value() ? grad_v0.mutable_data_ptr() : nullptr;
    call.grad_adapt0 = has_adapt && adapt.has_value() ? grad_adapt0.mutable_data_ptr() : nullptr;
    Tensor grad_tau = tau.has_value() ? torch::stable::empty_like(*tau) : no_tensor(x, real);
    Tensor grad_threshold = v_threshold.has_value() ? torch::stable::empty_like(*v_threshold) : no_tensor(x, real);
    Tensor affine_sums = torch::stable::new_empty(
        x, {affine.has_value() ? 2 : 0, affine.has_value() ? affine->size(1) : 1}, ScalarType::Double);
    Device::backward(call, x, grad_tau, grad_threshold, affine_sums);
    return {grad_x, grad_v0, grad_adapt0, grad_tau, grad_threshold, affine_sums};
  }
};

}  // namespace stdano

#define STDANO_IMPLEMENT(module, Device)                                                                 \
  module.impl("lif_forward", TORCH_BOX((&stdano::Operators<Device, stdano::Neuron::lif>::forward)));     \
  module.impl("llif_forward", TORCH_BOX((&stdano::Operators<Device, stdano::Neuron::llif>::forward)));   \
  module.impl("slif_forward", TORCH_BOX((&stdano::Operators<Device, stdano::Neuron::slif>::forward)));   \
  module.impl("lif_backward", TORCH_BOX((&stdano::Operators<Device, stdano::Neuron::lif>::backward)));   \
  module.impl("llif_backward", TORCH_BOX((&stdano::Operators<Device, stdano::Neuron::llif>::backward))); \
  module.impl("slif_backward", TORCH_BOX((&stdano::Operators<Device, stdano::Neuron::slif>::backward)))
