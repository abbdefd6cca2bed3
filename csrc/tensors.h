// From torch tensors to the plain description that kernels take: memory layouts, state tensors, checks. Shared by
// every compiled backend; built on the stable C++ ABI alone.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "call.h"

namespace stdano {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

inline Tensor empty_like(const Tensor& self, ScalarType dtype) {
  std::array<StableIValue, 6> stack{
      torch::stable::detail::from(self),         torch::stable::detail::from(std::optional<ScalarType>(dtype)),
      torch::stable::detail::from(std::nullopt), torch::stable::detail::from(std::nullopt),
      torch::stable::detail::from(std::nullopt), torch::stable::detail::from(std::nullopt)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::empty_like", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

inline Tensor no_tensor(const Tensor& like, ScalarType dtype) {
  return torch::stable::new_empty(like, {0}, dtype);
}

inline const void* data(const MaybeTensor& t) { return t.has_value() ? t->const_data_ptr() : nullptr; }

inline ScalarType compute_dtype(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Dtype kernel_dtype(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float: return Dtype::float32;
    case ScalarType::Double: return Dtype::float64;
    case ScalarType::BFloat16: return Dtype::bfloat16;
    case ScalarType::Half: return Dtype::float16;
    default: STD_TORCH_CHECK(false, "stdano: x must be float32, float64, bfloat16 or float16");
  }
  return Dtype::float32;
}

// Every element of a block of memory exactly once, in whatever order of dimensions.
inline bool is_dense(const Tensor& x) {
  if (x.numel() == 0 || x.is_contiguous()) return true;
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (x.size(d) > 1) dims.emplace_back(x.stride(d), x.size(d));
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

// Whether x [T, ...] is the same tensor at every time step, expanded: all steps lie at one place in memory.
inline bool is_constant(const Tensor& x) {
  return x.dim() > 0 && x.size(0) > 1 && x.stride(0) == 0 && x.numel() > 0;
}

// Of a dense tensor with the other dimensions of constant input time is the outermost one: no stride is left for it.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  for (int64_t d = is_constant(b) ? 1 : 0; d < a.dim(); ++d) {
    if (a.size(d) > 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

// Itself where its layout is that of `like`; a copy in that layout, in a dtype of its own, otherwise.
inline Tensor in_layout_of(const Tensor& t, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(t.dim() == like.dim() && t.numel() == like.numel() &&
                      t.get_device_index() == like.get_device_index(),
                  "stdano: ", name, " must have the shape and device that x requires");
  if (t.numel() == 0 || (is_dense(t) && same_layout(t, like))) return t;
  Tensor copy = empty_like(like, t.scalar_type());
  torch::stable::copy_(copy, t);
  return copy;
}

inline Tensor with_layout_of(const Tensor& t, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(t.scalar_type() == like.scalar_type(), "stdano: ", name, " must have the dtype that x requires");
  return in_layout_of(t, like, name);
}

inline Tensor dense(const Tensor& x) {
  if (is_dense(x)) return x;
  Tensor copy = torch::stable::empty_like(x);
  torch::stable::copy_(copy, x);
  return copy;
}

// Time steps for a neuron: dense, or constant input whose one step is dense.
inline Tensor dense_steps(const Tensor& x) {
  if (!is_constant(x)) return dense(x);
  const Tensor step = torch::stable::select(x, 0, 0);
  if (is_dense(step)) return x;
  const std::vector<int64_t> sizes(x.sizes().data(), x.sizes().data() + x.dim());
  std::array<StableIValue, 3> stack{torch::stable::detail::from(dense(step)), torch::stable::detail::from(sizes),
                                    torch::stable::detail::from(false)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::expand", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// An uninitialised tensor for a state of x: its shape less the time, its order of dimensions.
inline Tensor empty_state(const Tensor& x) {
  if (x.size(0) > 0) return empty_like(torch::stable::select(x, 0, 0), compute_dtype(x));
  const auto sizes = x.sizes();
  return torch::stable::new_empty(x, {sizes.data() + 1, sizes.size() - 1}, compute_dtype(x));
}

// x: dense, [T, B, C, ...], or constant input, whose geometry is that of what is like it. channels: 0 where tau and
// v_threshold are numbers or tensors of one element.
inline Geometry make_geometry(const Tensor& x, int64_t channels) {
  const int64_t T = x.size(0);
  int64_t N = 1;
  for (int64_t d = 1; d < x.dim(); ++d) N *= x.size(d);
  const int64_t inner = T > 1 && N > 0 && !is_constant(x) ? x.stride(0) : std::max<int64_t>(N, 1);
  Geometry g{T, N, inner, 1, std::max<int64_t>(N, 1)};
  if (channels > 1) {
    g.channels = channels;
    if (T > 0 && N > 0) {
      const int64_t stride = x.stride(2);
      g.channel_stride = T > 1 && stride > inner ? stride / T : stride;
    } else {  // a state is then contiguous
      g.channel_stride = 1;
      for (int64_t d = 3; d < x.dim(); ++d) g.channel_stride *= std::max<int64_t>(x.size(d), 1);
    }
  }
  return g;
}

// The channels of x, its dimension 2.
inline int64_t channels_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() >= 3, "stdano: x must have channels, [T, B, C, ...]");
  return x.size(2);
}

// What kernels read for each channel of x: [rows][channels].
inline void check_table(const Tensor& table, int64_t rows, const Tensor& x, const char* name) {
  STD_TORCH_CHECK(table.dim() == 2 && table.size(0) == rows && table.size(1) == channels_of(x) &&
                      table.scalar_type() == compute_dtype(x) && table.is_contiguous() &&
                      table.get_device_index() == x.get_device_index(),
                  "stdano: ", name, " must be a contiguous tensor of ", rows,
                  " rows with an element for each channel of x, in the dtype of the state, on x's device");
}

// Whether a constant has an element for each neuron: the shape of x less its time.
inline bool is_per_neuron(const Tensor& t, const Tensor& x) {
  if (t.dim() != x.dim() - 1 || t.dim() == 0) return false;
  for (int64_t d = 0; d < t.dim(); ++d) {
    if (t.size(d) != x.size(d + 1)) return false;
  }
  return true;
}

// The channels by which constants differ, 1 for none.
inline int64_t count_channels(const Tensor& x, const std::vector<Tensor>& constants, const MaybeTensor& affine) {
  int64_t channels = 1;
  if (affine.has_value()) {
    check_table(*affine, 3, x, "affine");
    channels = x.size(2);
  }
  for (const Tensor& t : constants) {
    STD_TORCH_CHECK(t.scalar_type() == compute_dtype(x) && t.get_device_index() == x.get_device_index(),
                    "stdano: constants must be in the dtype of the state, on x's device");
    if (is_per_neuron(t, x)) continue;
    STD_TORCH_CHECK(t.is_contiguous(), "stdano: constants must be contiguous");
    const int64_t n = t.numel();
    STD_TORCH_CHECK(n == 1 || (x.dim() >= 3 && n == x.size(2)),
                    "stdano: constants must have one element, one for each channel (dimension 2 of x), or one for each "
                    "neuron");
    channels = std::max(channels, n);
  }
  return channels;
}

}  // namespace stdano
