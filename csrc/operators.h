// The operators around a compiled backend's kernels: checks, layouts, allocation. What differs between backends is in
// `Device`: the tensors it serves, its kernels, its distance between checkpoints, how it runs a call and takes sums.
#pragma once

#include <string>
#include <tuple>

#include "tensors.h"

namespace stdano {

using Tensors = std::vector<Tensor>;

// What a state or its gradient has to be like, where there is one: memory in the order of x's dimensions.
inline std::vector<const void*> states_with_layout(Tensors& states, const Tensor& layout, const char* name) {
  std::vector<const void*> data;
  for (Tensor& t : states) {
    if (t.numel() == 0) {  // which stands for none
      data.push_back(nullptr);
      continue;
    }
    t = with_layout_of(t, layout, name);
    data.push_back(t.const_data_ptr());
  }
  return data;
}

inline std::vector<void*> write_to(Tensors& tensors) {
  std::vector<void*> data;
  for (Tensor& t : tensors) data.push_back(t.mutable_data_ptr());
  return data;
}

template <class Device>
struct Operators {
  using Kernels = typename Device::Kernels;

  static int64_t count_checkpoints(const Geometry& g, Dtype dtype) {
    return g.T > 0 ? (g.T - 1) / Device::checkpoint_steps(dtype) : 0;
  }

  // A neuron's constants as they were given: `which[i]` is the number of the constant that `tensors[i]` is; they must
  // live as long as the result. One of a single element beside one for each channel is expanded.
  static Member<Kernels> make_neuron(const std::string& kernel, const Tensor& x, const std::vector<double>& values,
                                     Tensors& tensors, const std::vector<int64_t>& which, double alpha,
                                     const Geometry& g) {
    Member<Kernels> neuron{Device::find(kernel, x), {}, alpha};
    STD_TORCH_CHECK(static_cast<int64_t>(values.size()) == neuron.kernels->constants && tensors.size() == which.size(),
                    "stdano: ", kernel, " has ", neuron.kernels->constants, " constants, got ", values.size());
    for (double value : values) neuron.constants.push_back({value, nullptr, false});
    for (size_t i = 0; i < which.size(); ++i) {
      STD_TORCH_CHECK(which[i] >= 0 && which[i] < static_cast<int64_t>(values.size()), "stdano: no constant ", which[i]);
      Tensor& t = tensors[i];
      const bool per_neuron = is_per_neuron(t, x), one = t.numel() == 1;
      if (per_neuron) {
        t = with_layout_of(t, empty_state(x), "a constant");
      } else if (t.numel() != g.channels) {
        Tensor expanded = torch::stable::new_empty(t, {g.channels}, t.scalar_type());
        torch::stable::copy_(expanded, t);
        t = expanded;
      }
      neuron.constants[which[i]] = {0, t.const_data_ptr(), per_neuron, one};
    }
    return neuron;
  }

  using Forward = std::tuple<Tensor, Tensors, Tensors, Tensor>;

  static Forward forward(Tensor x, Tensors state, Tensors constants, MaybeTensor affine, std::vector<int64_t> which,
                         std::vector<double> values, double alpha, std::string kernel, bool save_checkpoints,
                         bool return_state, std::vector<int64_t> sequences) {
    const typename Device::Guard guard(x);
    STD_TORCH_CHECK(x.dim() >= 1, "stdano: x must have a time dimension");
    return forward_by(Device::forward, x, state, constants, affine, which, values, alpha, kernel, save_checkpoints,
                      return_state, sequences);
  }

  // run(call, x) runs the call.
  template <class Run>
  static Forward forward_by(Run run, Tensor x, Tensors& state, Tensors& constants, const MaybeTensor& affine,
                            const std::vector<int64_t>& which, const std::vector<double>& values, double alpha,
                            const std::string& kernel, bool save_checkpoints, bool return_state,
                            const std::vector<int64_t>& sequences) {
    const int64_t channels = count_channels(x, constants, affine);
    const ScalarType real = compute_dtype(x);
    x = dense_steps(x);
    ForwardCall<Kernels> call{};
    call.g = make_geometry(x, channels);
    call.dtype = kernel_dtype(x);
    call.neuron = make_neuron(kernel, x, values, constants, which, alpha, call.g);
    const int64_t states = call.neuron.kernels->states;
    STD_TORCH_CHECK(state.empty() || static_cast<int64_t>(state.size()) == states, "stdano: ", kernel, " has ", states,
                    " states, got ", state.size());

    const Tensor layout = return_state || !state.empty() ? empty_state(x) : no_tensor(x, real);
    call.state0 = states_with_layout(state, layout, "state");
    Tensor spikes = torch::stable::empty_like(x);
    Tensors state_out, sequences_out;
    for (int64_t j = 0; return_state && j < states; ++j) {
      state_out.push_back(j == 0 ? layout : torch::stable::empty_like(layout));
    }
    for (int64_t j : sequences) {
      STD_TORCH_CHECK(j >= 0 && j < states, "stdano: no state ", j);
      sequences_out.push_back(torch::stable::empty_like(x));
    }
    const int64_t saved = save_checkpoints ? count_checkpoints(call.g, call.dtype) : 0;
    Tensor checkpoints = torch::stable::new_empty(x, {saved, states, call.g.N}, real);

    call.x = x.const_data_ptr();
    call.constant = is_constant(x);
    call.affine = data(affine);
    call.spikes = spikes.mutable_data_ptr();
    call.state = write_to(state_out);
    call.sequences = write_to(sequences_out);
    call.which = sequences;
    call.checkpoints = saved > 0 ? checkpoints.mutable_data_ptr() : nullptr;
    run(call, x);
    return {spikes, state_out, sequences_out, checkpoints};
  }

  static std::tuple<Tensor, Tensors, Tensors, Tensor> backward(
      Tensor grad_spikes, Tensors grad_state, Tensors grad_sequences, Tensor x, Tensors state, Tensor checkpoints,
      Tensors constants, MaybeTensor affine, std::vector<int64_t> which, std::vector<double> values, double alpha,
      std::string kernel, std::vector<int64_t> sequences) {
    const typename Device::Guard guard(x);
    Tensor sums = torch::stable::new_empty(
        x, {affine.has_value() ? 2 : 0, affine.has_value() ? affine->size(1) : 1}, ScalarType::Double);
    const auto run = [&](BackwardCall<Kernels>& call, const Tensor& x, Tensors& grad_constants) {
      Device::backward(call, x, which, grad_constants, sums);
    };
    auto [grad_x, grad_state0, grad_constants] =
        backward_by(run, grad_spikes, grad_state, grad_sequences, x, state, checkpoints, constants, affine, which,
                    values, alpha, kernel, sequences);
    return {grad_x, grad_state0, grad_constants, sums};
  }

  // run(call, x, grad_constants) runs the call and takes the sums.
  template <class Run>
  static std::tuple<Tensor, Tensors, Tensors> backward_by(
      Run run, Tensor grad_spikes, Tensors& grad_state, Tensors& grad_sequences, Tensor x, Tensors& state,
      const Tensor& checkpoints, Tensors& constants, const MaybeTensor& affine, const std::vector<int64_t>& which,
      const std::vector<double>& values, double alpha, const std::string& kernel,
      const std::vector<int64_t>& sequences) {
    const int64_t channels = count_channels(x, constants, affine);
    const ScalarType real = compute_dtype(x);
    const Tensors given = constants;
    x = dense_steps(x);
    BackwardCall<Kernels> call{};
    call.g = make_geometry(x, channels);
    call.dtype = kernel_dtype(x);
    call.neuron = make_neuron(kernel, x, values, constants, which, alpha, call.g);
    const int64_t states = call.neuron.kernels->states;
    STD_TORCH_CHECK((state.empty() || static_cast<int64_t>(state.size()) == states) &&
                        (grad_state.empty() || static_cast<int64_t>(grad_state.size()) == states) &&
                        grad_sequences.size() == sequences.size(),
                    "stdano: ", kernel, " has ", states, " states");
    grad_spikes = with_layout_of(grad_spikes, x, "grad_spikes");
    for (Tensor& t : grad_sequences) {
      const bool none = t.numel() == 0;
      if (!none) t = with_layout_of(t, x, "grad_sequences");
      call.grad_sequences.push_back(none ? nullptr : t.const_data_ptr());
    }
    const Tensor layout = state.empty() && grad_state.empty() ? no_tensor(x, real) : empty_state(x);
    call.state0 = states_with_layout(state, layout, "state");
    call.grad_state = states_with_layout(grad_state, layout, "grad_state");
    STD_TORCH_CHECK(checkpoints.numel() == count_checkpoints(call.g, call.dtype) * states * call.g.N &&
                        checkpoints.scalar_type() == real,
                    "stdano: checkpoints must be those that the forward operator returned");

    call.constant = is_constant(x);
    Tensor grad_x = torch::stable::empty_like(call.constant ? torch::stable::select(x, 0, 0) : x);
    Tensors grad_state0, grad_constants;
    for (size_t j = 0; j < state.size(); ++j) grad_state0.push_back(torch::stable::empty_like(layout));
    call.grad_constants.assign(values.size(), nullptr);
    for (size_t i = 0; i < which.size(); ++i) {
      const bool per_neuron = call.neuron.constants[which[i]].per_neuron;
      grad_constants.push_back(torch::stable::empty_like(per_neuron ? constants[i] : given[i]));
      if (per_neuron) call.grad_constants[which[i]] = grad_constants[i].mutable_data_ptr();
    }
    call.x = x.const_data_ptr();
    call.affine = data(affine);
    call.checkpoints = checkpoints.const_data_ptr();
    call.grad_spikes = grad_spikes.const_data_ptr();
    call.which = sequences;
    call.grad_x = grad_x.mutable_data_ptr();
    call.grad_state0 = write_to(grad_state0);
    run(call, x, grad_constants);
    return {grad_x, grad_state0, grad_constants};
  }
};

}  // namespace stdano

#define STDANO_IMPLEMENT(module, Device)                                             \
  module.impl("scan_forward", TORCH_BOX((&stdano::Operators<Device>::forward)));     \
  module.impl("scan_backward", TORCH_BOX((&stdano::Operators<Device>::backward)))
