// Writes the seeds of fuzz_gguf: whole vision files, as small as they can be, of a model with and without a
// compressor.
//   build/fuzz/bin/make_gguf_seeds fuzz/corpus/gguf
#include <cstdio>

#include "../tests/support/random_vision_file.h"

namespace {

llava_mini::VisionHparams smallest() {
    llava_mini::VisionHparams hp;
    hp.name = "seed";
    hp.image_size = 4;
    hp.patch_size = 2;
    hp.n_layer = 1;
    hp.n_embd = 4;
    hp.n_ff = 4;
    hp.n_head = 2;
    hp.image_std = {1, 1, 1};
    hp.compressor_grids = {1, 2};
    hp.compressor_head_dim = 2;
    hp.prefusion = {.n_layer = 1, .n_embd = 4, .n_ff = 4, .n_head = 2, .n_head_kv = 1, .head_dim = 2};
    return hp;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    const std::filesystem::path folder = argv[1];
    std::filesystem::create_directories(folder);
    llava_mini::VisionHparams hp = smallest();
    llava_mini::test::write_random_vision_file(folder / "llava-mini.gguf", hp);
    hp.compressor_grids.clear();
    hp.prefusion.n_layer = 0;
    llava_mini::test::write_random_vision_file(folder / "llava-v1.5.gguf", hp);
}
