// libFuzzer target: the reader of safetensors files, and reading all it says is there.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "convert/safetensors.h"
#include "llava_mini/error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const llava_mini::SafetensorsReader reader({data, size}, "fuzz");
        std::vector<uint8_t> bytes;
        for (const auto& [name, tensor] : reader.tensors()) {
            bytes.resize(tensor.bytes);  // checked: no more than the file has
            reader.read(tensor, 0, bytes);
            static_cast<void>(tensor.elements());
        }
    } catch (const llava_mini::Error&) {
    }
    return 0;
}
