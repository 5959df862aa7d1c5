// The table of shapes that can be synthesized.
#include <fmt/format.h>

#include "convert/synth.h"
#include "core/error.h"
#include "model/tensor_names.h"

namespace llava_mini {
namespace {

// CLIP ViT-L/14-336, up to its last layer but one.
void set_clip_l_336(SynthShape& shape) {
    shape.tower_layers = 24;
    shape.vision.n_layer = 23;
    shape.vision.n_embd = 1024;
    shape.vision.n_ff = 4096;
    shape.vision.n_head = 16;
}

void set_small_tower(SynthShape& shape) {
    shape.tower_layers = 3;
    shape.vision.n_layer = 2;
    shape.vision.n_embd = 256;
    shape.vision.n_ff = 512;
    shape.vision.n_head = 4;
}

void set_llama3_rope(LlamaHparams& hp) {
    hp.rope_theta = 500000.0f;
    hp.rope_freq_factors = llama3_rope_freq_factors(hp.head_dim, hp.rope_theta, 8.0f, 1.0f, 4.0f, 8192.0f);
}

LlamaHparams llama(int layers, int width, int feed_forward, int heads, int heads_kv, int vocabulary,
                   int context) {
    LlamaHparams hp;
    hp.n_layer = layers;
    hp.n_embd = width;
    hp.n_ff = feed_forward;
    hp.n_head = heads;
    hp.n_head_kv = heads_kv;
    hp.head_dim = width / heads;
    hp.n_vocab = vocabulary;
    hp.n_ctx_train = context;
    hp.rms_eps = 1e-5f;
    return hp;
}

SynthShape make_shape(const char* name, const char* description, LlamaHparams language, int prefusion_layers,
                      std::vector<int> grids) {
    SynthShape shape;
    shape.name = name;
    shape.description = description;
    shape.language = std::move(language);
    shape.vision.image_mean = {0.48145466f, 0.4578275f, 0.40821073f};
    shape.vision.image_std = {0.26862954f, 0.26130258f, 0.27577711f};
    shape.vision.image_aspect_ratio = "pad";
    shape.vision.compressor_grids = std::move(grids);
    shape.vision.prefusion = shape.language;
    shape.vision.prefusion.n_layer = prefusion_layers;
    return shape;
}

std::vector<SynthShape> make_shapes() {
    std::vector<SynthShape> shapes;
    LlamaHparams llama31 = llama(32, 4096, 14336, 32, 8, 128256, 131072);
    set_llama3_rope(llama31);
    shapes.push_back(make_shape("llava-mini-llama-3.1-8b", "LLaVA-Mini on Llama 3.1 8B with CLIP-L/14-336",
                                llama31, 4, {1}));
    set_clip_l_336(shapes.back());

    shapes.push_back(make_shape("llava-v1.5-7b", "LLaVA-v1.5 on Vicuna 7B with CLIP-L/14-336: no compression",
                                llama(32, 4096, 11008, 32, 32, 32000, 4096), 0, {}));
    set_clip_l_336(shapes.back());
    shapes.back().sentencepiece = true;

    LlamaHparams small = llama(2, 256, 512, 4, 2, 1024, 8192);
    set_llama3_rope(small);
    shapes.push_back(make_shape("llava-mini-small", "a small LLaVA-Mini, for tests", small, 2, {1}));
    set_small_tower(shapes.back());

    shapes.push_back(make_shape("llava-v1.5-small", "a small LLaVA-v1.5, for tests",
                                llama(2, 256, 512, 4, 4, 1024, 4096), 0, {}));
    set_small_tower(shapes.back());
    shapes.back().sentencepiece = true;
    return shapes;
}

}  // namespace

const std::vector<SynthShape>& synth_shapes() {
    static const std::vector<SynthShape> shapes = make_shapes();
    return shapes;
}

const SynthShape& find_synth_shape(std::string_view name) {
    std::string names;
    for (const SynthShape& shape : synth_shapes()) {
        if (shape.name == name) return shape;
        names += (names.empty() ? "" : ", ") + shape.name;
    }
    throw_usage("the shape {} is unknown; expected one of {}", name, names);
}

}  // namespace llava_mini
