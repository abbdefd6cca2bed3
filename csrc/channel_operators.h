// The operators around channels: BatchNorm's statistics, and the passes of the super neuron. As in operators.h, what
// differs between backends is in `Device`.
#pragma once

#include "operators.h"

namespace stdano {

template <class Device>
struct ChannelOperators {
  static Tensor channel_sums(Tensor x) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense(x);
    Tensor sums = torch::stable::new_empty(x, {kChannelSums, channels}, ScalarType::Double);
    ChannelSumsCall call{make_geometry(x, channels), kernel_dtype(x), x.const_data_ptr(), nullptr};
    Device::channel_sums(call, sums);
    return sums;
  }

  static Tensor channel_affine(Tensor grad, Tensor x, Tensor table) {
    const typename Device::Guard guard(x);
    x = dense(x);
    Tensor out = torch::stable::empty_like(x);
    channel_affine_into(out, with_layout_of(grad, x, "grad"), x, table);
    return out;
  }

  // The same in place.
  static void channel_affine_(Tensor grad, Tensor x, Tensor table) {
    const typename Device::Guard guard(x);
    x = dense(x);
    const Tensor in_layout = with_layout_of(grad, x, "grad");
    STD_TORCH_CHECK(in_layout.const_data_ptr() == grad.const_data_ptr(),
                    "stdano: grad must have the layout of x where it is changed in place");
    channel_affine_into(grad, grad, x, table);
  }

  static void channel_affine_into(Tensor& out, const Tensor& grad, const Tensor& x, const Tensor& table) {
    check_table(table, 3, x, "table");
    Device::channel_affine({make_geometry(x, channels_of(x)), kernel_dtype(x), grad.const_data_ptr(),
                            x.const_data_ptr(), table.const_data_ptr(), out.mutable_data_ptr()},
                           x);
  }

  using Codes = std::tuple<Tensor, Tensor>;

  static Codes encode(Tensor x, int64_t neurons, double tau, double v_threshold, std::optional<double> v_reset,
                      std::optional<double> slif_v_reset, double gamma, double beta, double tau_min, bool linear_decay,
                      bool decay_input, int64_t surrogate, double alpha, bool detach_reset, bool detach_adapt) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense(x);
    Tensor codes = empty_like(x, ScalarType::Byte);
    Tensor counts = torch::stable::new_empty(x, {kSuperNeurons, channels}, ScalarType::Double);
    EncodeCall call{};
    call.g = make_geometry(x, channels);
    call.neurons = super_neurons(neurons, x, tau, v_threshold, v_reset, slif_v_reset, gamma, beta, tau_min,
                                 linear_decay, decay_input, surrogate, alpha, detach_reset, detach_adapt);
    call.x = x.const_data_ptr();
    call.codes = static_cast<uint8_t*>(codes.mutable_data_ptr());
    Device::encode(call, counts);
    return {codes, counts};
  }

  static Tensor decode(Tensor codes, Tensor table, Tensor like) {
    const typename Device::Guard guard(codes);
    const int64_t channels = channels_of(codes);
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && is_dense(codes), "stdano: codes must be dense uint8");
    check_table(table, kDecodeRows, like, "table");
    Tensor y = empty_like(codes, like.scalar_type());
    Device::decode({make_geometry(codes, channels), kernel_dtype(like),
                    static_cast<const uint8_t*>(codes.const_data_ptr()), table.const_data_ptr(), y.mutable_data_ptr()},
                   codes);
    return y;
  }

  static Tensor super_sums(Tensor codes, Tensor grad) {
    const typename Device::Guard guard(codes);
    const int64_t channels = channels_of(codes);
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && is_dense(codes), "stdano: codes must be dense uint8");
    grad = in_layout_of(grad, codes, "grad");
    Tensor sums = torch::stable::new_empty(codes, {kSuperSums, channels}, ScalarType::Double);
    SuperSumsCall call{make_geometry(codes, channels), kernel_dtype(grad),
                       static_cast<const uint8_t*>(codes.const_data_ptr()), grad.const_data_ptr(), nullptr};
    Device::super_sums(call, sums);
    return sums;
  }

  static Tensor super_backward(Tensor grad, Tensor x, Tensor codes, Tensor table, int64_t neurons, double tau,
                               double v_threshold, std::optional<double> v_reset, std::optional<double> slif_v_reset,
                               double gamma, double beta, double tau_min, bool linear_decay, bool decay_input,
                               int64_t surrogate, double alpha, bool detach_reset, bool detach_adapt) {
    const typename Device::Guard guard(x);
    const int64_t channels = channels_of(x);
    x = dense(x);
    grad = with_layout_of(grad, x, "grad");
    check_table(table, kSuperBackwardRows, x, "table");
    STD_TORCH_CHECK(codes.scalar_type() == ScalarType::Byte && codes.dim() == x.dim() && codes.numel() == x.numel() &&
                        codes.get_device_index() == x.get_device_index() && same_layout(codes, x),
                    "stdano: codes must be those that the forward operator returned for x");
    Tensor grad_x = torch::stable::empty_like(x);
    SuperBackwardCall call{};
    call.g = make_geometry(x, channels);
    call.neurons = super_neurons(neurons, x, tau, v_threshold, v_reset, slif_v_reset, gamma, beta, tau_min,
                                 linear_decay, decay_input, surrogate, alpha, detach_reset, detach_adapt);
    call.x = x.const_data_ptr();
    call.grad = grad.const_data_ptr();
    call.table = table.const_data_ptr();
    call.codes = static_cast<const uint8_t*>(codes.const_data_ptr());
    call.grad_x = grad_x.mutable_data_ptr();
    Device::super_backward(call, x);
    return grad_x;
  }

 private:
  static SuperNeurons super_neurons(int64_t present, const Tensor& x, double tau, double v_threshold,
                                    std::optional<double> v_reset, std::optional<double> slif_v_reset, double gamma,
                                    double beta, double tau_min, bool linear_decay, bool decay_input,
                                    int64_t surrogate, double alpha, bool detach_reset, bool detach_adapt) {
    STD_TORCH_CHECK(present > 0 && present < (1 << kSuperNeurons), "stdano: neurons must be a set of bits, 1 to 7");
    const auto options = [&](Neuron neuron, std::optional<double> reset, double rate) {
      return make_options(neuron, x, tau, v_threshold, reset, rate, tau_min, linear_decay, decay_input, surrogate,
                          alpha, false, detach_reset, detach_adapt);
    };
    return {present,
            {options(Neuron::lif, v_reset, 0), options(Neuron::llif, v_reset, gamma),
             options(Neuron::slif, slif_v_reset, beta)}};
  }
};

}  // namespace stdano

#define STDANO_IMPLEMENT_CHANNELS(module, Device)                                                             \
  module.impl("channel_sums", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_sums)));                  \
  module.impl("channel_affine", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_affine)));              \
  module.impl("channel_affine_", TORCH_BOX((&stdano::ChannelOperators<Device>::channel_affine_)));            \
  module.impl("super_neuron_encode", TORCH_BOX((&stdano::ChannelOperators<Device>::encode)));                 \
  module.impl("super_neuron_decode", TORCH_BOX((&stdano::ChannelOperators<Device>::decode)));                 \
  module.impl("super_neuron_sums", TORCH_BOX((&stdano::ChannelOperators<Device>::super_sums)));               \
  module.impl("super_neuron_backward", TORCH_BOX((&stdano::ChannelOperators<Device>::super_backward)))
