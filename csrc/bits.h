// The operators that turn spikes into bits and back, for every compiled backend. `Device` runs a BitsCall.
#pragma once

#include <tuple>

#include "tensors.h"

namespace stdano {

template <class Device>
struct BitsOperators {
  // Values [n] as bits [planes][bytes of a plane], and whether these are exact: where there is a value that is no whole
  // number of 1/scale or too large, they are of no use. A device does not look, since the host would have to wait.
  static std::tuple<Tensor, bool> pack(Tensor x, int64_t scale, int64_t planes) {
    const typename Device::Guard guard(x);
    STD_TORCH_CHECK(x.dim() == 1 && x.is_contiguous(), "stdano: x must be contiguous, of one dimension");
    STD_TORCH_CHECK(planes >= 1 && planes <= kMostPlanes, "stdano: planes must be 1 to ", kMostPlanes, ", got ", planes);
    check_scale(scale);
    const int64_t bytes = (x.numel() + 7) / 8;
    Tensor bits = torch::stable::new_empty(x, {planes, bytes}, ScalarType::Byte);
    const BitsCall call{kernel_dtype(x),   x.numel(), scale, static_cast<int>(planes), const_cast<void*>(x.const_data_ptr()),
                        bits.mutable_data_ptr<uint8_t>(), bytes};
    return {bits, x.numel() == 0 || Device::pack(call, x)};
  }

  // All values of the bytes that are given, in the dtype and on the device of `like`.
  static Tensor unpack(Tensor bits, int64_t scale, Tensor like) {
    const typename Device::Guard guard(bits);
    STD_TORCH_CHECK(bits.dim() == 2 && bits.scalar_type() == ScalarType::Byte && bits.size(0) >= 1 &&
                        bits.size(0) <= kMostPlanes && (bits.size(1) < 2 || bits.stride(1) == 1) &&
                        bits.get_device_index() == like.get_device_index(),
                    "stdano: bits must be those that pack_spikes returned, on the device of like");
    check_scale(scale);
    const int64_t count = 8 * bits.size(1);
    Tensor values = torch::stable::new_empty(like, {count});
    const BitsCall call{kernel_dtype(like),
                        count,
                        scale,
                        static_cast<int>(bits.size(0)),
                        values.mutable_data_ptr(),
                        const_cast<uint8_t*>(bits.const_data_ptr<uint8_t>()),
                        bits.stride(0)};
    if (count > 0) Device::unpack(call, like);
    return values;
  }

 private:
  static void check_scale(int64_t scale) {
    STD_TORCH_CHECK(scale >= 1 && scale < 1 << 20, "stdano: scale must be 1 to 2^20 - 1, got ", scale);
  }
};

}  // namespace stdano

#define STDANO_IMPLEMENT_BITS(module, Device)                                           \
  module.impl("pack_spikes", TORCH_BOX((&stdano::BitsOperators<Device>::pack)));        \
  module.impl("unpack_spikes", TORCH_BOX((&stdano::BitsOperators<Device>::unpack)))
