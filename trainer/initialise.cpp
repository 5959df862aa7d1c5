#include "trainer/initialise.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "convert/checkpoint_config.h"
#include "convert/json_input.h"
#include "convert/vocabulary.h"
#include "core/error.h"
#include "core/file.h"
#include "trainer/parameters.h"
#include "trainer/random.h"

namespace llava_mini::trainer {
namespace {

namespace fs = std::filesystem;

constexpr double kDeviation = 0.02;  // of N(0, s), Hugging Face's initializer_range
constexpr double kMimeticNoise = 0.02;
constexpr const char* kTowerFolder = "vision_tower";  // holds the tower's configuration

class Initialiser {
  public:
    Initialiser(const VisionHparams& vision, const LlamaHparams& language, const InitialiseOptions& options)
        : vision_(vision), language_(language), options_(options) {}

    // Every tensor draws from its own generator, so that its values depend on its name alone.
    void fill(const Leaf& leaf) {
        uint64_t key = options_.seed;
        for (const char c : leaf.key) key = mix(key ^ static_cast<unsigned char>(c));
        random_.seed(key);
        torch::Tensor value = leaf.value;
        const std::string& name = leaf.key;
        const bool is_bias = name.ends_with("bias");
        const bool is_norm = leaf.shape.size() == 1 && name.ends_with(".weight");
        if (is_bias) {
            value.zero_();
        } else if (is_norm) {
            value.fill_(
                options_.mimetic && name == "model.norm.weight"
                    ? 1.0 / (options_.embedding_deviation * std::sqrt(static_cast<double>(language_.n_embd)))
                    : 1.0);
        } else if (leaf.part == Part::kEmbeddings || leaf.part == Part::kHead) {
            normal(value, options_.embedding_deviation);
        } else if (name.starts_with("compressor.pos_embed")) {
            sine_grid(value);
        } else if (leaf.part == Part::kTower || leaf.part == Part::kProjector ||
                   leaf.part == Part::kCompressor) {
            normal(value, vision_deviation(leaf));
        } else {
            llama_matrix(leaf, value);
            // What an added layer adds is zero, so that the model begins as it was.
            if (is_added(leaf) && (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight"))) {
                value.zero_();
            }
        }
    }

    // Whether the leaf's values are not to be taken from a folder.
    bool begins_anew(const Leaf& leaf) const {
        return std::count(options_.renewed.begin(), options_.renewed.end(), leaf.part) > 0 || is_added(leaf);
    }

  private:
    // Whether the leaf belongs to a layer of the language model that its folder does not have.
    bool is_added(const Leaf& leaf) const {
        constexpr std::string_view kLayers = "model.layers.";
        if (options_.added_layers == 0 || !leaf.key.starts_with(kLayers)) return false;
        return std::stoi(leaf.key.substr(kLayers.size())) >= language_.n_layer - options_.added_layers;
    }

    // Linear layers of width n: 1 / sqrt(n), so that activations keep their size; less where a layer of the
    // tower adds to the residual stream, and in the projector's last matrix: scores against the embeddings
    // that start large put the features into a corner in which they stay.
    double vision_deviation(const Leaf& leaf) const {
        const std::string& name = leaf.key;
        if (name.find("position_embedding") != std::string::npos) return 10 * kDeviation;
        if (name.find("class_embedding") != std::string::npos || name.find("query") != std::string::npos) {
            return kDeviation;
        }
        int64_t inputs = 1;
        for (size_t i = 1; i < leaf.shape.size(); ++i) inputs *= leaf.shape[i];
        const double deviation = 1.0 / std::sqrt(static_cast<double>(inputs));
        if (name == "mm_projector.2.weight") return 0.1 * deviation;
        const bool adds = name.find("encoder.layers.") != std::string::npos &&
                          (name.ends_with("out_proj.weight") || name.ends_with("fc2.weight"));
        return adds ? deviation / std::sqrt(2.0 * vision_.n_layer) : deviation;
    }

    void normal(torch::Tensor& value, double deviation) {
        std::normal_distribution<float> draw(0.0f, static_cast<float>(deviation));
        float* data = value.data_ptr<float>();
        for (int64_t i = 0; i < value.numel(); ++i) data[i] = draw(random_);
    }

    // [rows, columns] with orthonormal rows or columns, whichever are fewer.
    torch::Tensor orthogonal(int64_t rows, int64_t columns) {
        torch::Tensor square = torch::empty({std::max(rows, columns), std::min(rows, columns)});
        normal(square, 1.0);
        const auto q = std::get<0>(torch::linalg_qr(square));
        return rows >= columns ? q : q.t().contiguous();
    }

    void llama_matrix(const Leaf& leaf, torch::Tensor& value) {
        const bool qkv = leaf.key.ends_with("qkv.weight"), out = leaf.key.ends_with("o_proj.weight");
        if (!options_.mimetic || !(qkv || out)) {
            // Mimetic layers start close to the identity: what the MLP adds is small at first.
            normal(value,
                   options_.mimetic ? 0.5 / std::sqrt(static_cast<double>(leaf.shape[1])) : kDeviation);
            if (options_.mimetic && leaf.key.ends_with("down_proj.weight"))
                value.mul_(options_.embedding_deviation);
            return;
        }
        const int64_t d = language_.n_embd, q = int64_t{language_.n_head} * language_.head_dim,
                      kv = int64_t{language_.n_head_kv} * language_.head_dim;
        // O2 of a layer is the same in Wv and Wo: drawn from a key without the matrix's name.
        uint64_t key = options_.seed;
        const std::string layer = leaf.key.substr(0, leaf.key.find("self_attn"));
        for (const char c : layer) key = mix(key ^ static_cast<unsigned char>(c));
        if (qkv) {
            const double gain = leaf.part == Part::kPrefusion ? 1.0 : 0.7;
            const auto o = orthogonal(q, d);
            normal(value, kMimeticNoise);
            value.slice(0, 0, q).add_(o, gain);
            value.slice(0, q, q + kv).add_(o.slice(0, 0, kv), gain);
            random_.seed(key);
            value.slice(0, q + kv).copy_(orthogonal(kv, d));
        } else {
            random_.seed(key);
            const auto o2 = orthogonal(kv, d);  // groups of query heads share a value head
            const int64_t group = q / kv, head = language_.head_dim;
            const auto heads = o2.view({kv / head, 1, head, d}).expand({kv / head, group, head, d});
            value.copy_(heads.reshape({q, d}).t().mul(0.7 * options_.embedding_deviation /
                                                      static_cast<double>(group)));
        }
    }

    // SPEC.md, Compression: first half of the channels x, second half y, each half sines then cosines.
    void sine_grid(torch::Tensor& value) {
        const int64_t rows = value.size(0), d = value.size(1), quarter = d / 4;
        const auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(rows))));
        auto at = value.accessor<float, 2>();
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t i = 0; i < d; ++i) {
                const double position = static_cast<double>(i < d / 2 ? row % side : row / side);
                const int64_t in_half = i % (d / 2), k = in_half % quarter;
                const double angle =
                    position / std::pow(10000.0, static_cast<double>(k) / static_cast<double>(quarter));
                at[row][i] = static_cast<float>(in_half < quarter ? std::sin(angle) : std::cos(angle));
            }
        }
    }

    const VisionHparams& vision_;
    const LlamaHparams& language_;
    const InitialiseOptions& options_;
    std::mt19937_64 random_;
};

// An empty set of weights: the configuration is read before there are any.
std::string empty_safetensors() {
    std::string header =
        R"({"model.vision_tower.vision_tower.x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
        R"("model.prefusion_layers.x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string file(8, '\0');
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
    return file + header + std::string(8, '\0');
}

// Takes every tensor that the folder has in the right shape, but for what begins anew; marks the leaves that are
// whole then.
void take(const fs::path& folder, bool tower, const Initialiser& initialiser, Parameters& parameters,
          std::vector<bool>& taken) {
    const SafetensorsReader reader(folder);
    for (size_t i = 0; i < parameters.leaves().size(); ++i) {
        const Leaf& leaf = parameters.leaves()[i];
        if ((leaf.part == Part::kTower) != tower) continue;
        if (initialiser.begins_anew(leaf)) continue;
        size_t offset = 0, found = 0;
        for (const Leaf::Piece& piece : leaf.pieces) {
            size_t size = 1;
            for (const int64_t n : piece.shape) size *= static_cast<size_t>(n);
            const std::string inside = piece.checkpoint;
            const SafetensorsTensor* tensor = reader.find(inside);
            if (tensor == nullptr && tower) {
                tensor = reader.find(inside.substr(std::string(kTowerInsidePrefix).size()));
            }
            if (tensor != nullptr) {
                if (tensor->shape != piece.shape) {
                    throw_input("{}: {}: expected shape [{}] as the configuration says, found [{}]",
                                reader.name(), inside, fmt::join(piece.shape, ", "),
                                fmt::join(tensor->shape, ", "));
                }
                read_as_float(reader, *tensor, {leaf.value.data_ptr<float>() + offset, size});
                ++found;
            }
            offset += size;
        }
        const bool must = tower || leaf.part == Part::kLanguage || leaf.part == Part::kEmbeddings;
        if (found != leaf.pieces.size() && (must || found > 0)) {
            throw_input("{}: tensor '{}' is missing", reader.name(), leaf.pieces.front().checkpoint);
        }
        taken[i] = found == leaf.pieces.size();
    }
}

}  // namespace

void copy_tokenizer(const fs::path& from, const fs::path& to) {
    for (const char* name :
         {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
          "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json"}) {
        if (fs::exists(from / name))
            write_text_file(to / name, read_text_file(from / name, uint64_t{1} << 28));
    }
}

namespace {

// The field `init` of the recipe's model.
void read_init(const JsonObject& model, InitialiseOptions& options) {
    const auto init = model.object("init");
    if (!init) return;
    for (const auto& [key, value] : model.find("init")->items()) {
        if (key != "mimetic" && key != "embedding_deviation" && key != "renew" && key != "added_layers") {
            throw_input("the recipe's model: init: unknown field '{}'", printable(key));
        }
    }
    options.mimetic = init->boolean_or("mimetic", false);
    options.embedding_deviation = init->real_or("embedding_deviation", 1e-6, 100, 0.02f);
    options.added_layers = init->integer_or("added_layers", 0, 1 << 12, 0);
    if (const nlohmann::json* renew = init->find("renew")) {
        if (!renew->is_array()) init->fail("renew", "a list of parts");
        for (const auto& name : *renew) {
            const auto part = std::find(kPartNames.begin(), kPartNames.end(), name);
            if (part == kPartNames.end()) {
                init->fail("renew", fmt::format("parts out of {}", fmt::join(kPartNames, ", ")));
            }
            options.renewed.push_back(static_cast<Part>(part - kPartNames.begin()));
        }
    }
}

// What the recipe's model says beside folders of weights.
void put_over(const nlohmann::ordered_json& model, InitialiseOptions& options) {
    if (model.is_null()) return;
    const nlohmann::json root = model;
    const JsonObject object(root, "the recipe's model");
    if (object.has("tower")) {
        object.fail("tower", "none, since the vision tower is given (--set model.tower=null leaves it out)");
    }
    if (object.object("config")) options.config.update(model["config"]);
    read_init(object, options);
    if (options.added_layers > 0) {
        const nlohmann::json config = options.config;
        options.config["num_hidden_layers"] =
            JsonObject(config, "config.json").integer("num_hidden_layers", 1, 1 << 16) + options.added_layers;
    }
}

nlohmann::ordered_json read_ordered(const fs::path& file) {
    JsonObject(read_json_file(file, uint64_t{1} << 24), file.string());  // checked
    return nlohmann::ordered_json::parse(read_text_file(file, uint64_t{1} << 24));
}

}  // namespace

InitialiseOptions options_of_recipe(const nlohmann::ordered_json& model) {
    InitialiseOptions options;
    const nlohmann::json root = model;
    const JsonObject object(root, "the recipe's model");
    for (const char* key : {"config", "tower"}) {
        if (!object.object(key)) object.fail(key, "an object");
    }
    options.config = model["config"];
    options.tower_config = model["tower"];
    read_init(object, options);
    if (!options.renewed.empty() || options.added_layers > 0) {
        throw_input("the recipe's model: init: renew and added_layers need a checkpoint to start from");
    }
    return options;
}

InitialiseOptions options_of_parts(const fs::path& language, const fs::path& vision_tower,
                                   const nlohmann::ordered_json& model) {
    InitialiseOptions options;
    options.config = {{"compressor_size", 1}, {"prefusion_layer_num", 4}, {"image_aspect_ratio", "pad"}};
    options.config.update(read_ordered(language / "config.json"));
    options.config["architectures"] = {"LlavaMiniLlamaForCausalLM"};
    options.config["model_type"] = "llava_mini_llama";
    put_over(model, options);

    const fs::path tower_file = vision_tower / "config.json";
    const nlohmann::ordered_json tower = read_ordered(tower_file);
    options.tower_config = tower.contains("vision_config") ? tower["vision_config"] : tower;
    const nlohmann::json tower_root = options.tower_config, root = options.config;
    const int layers = JsonObject(tower_root, tower_file.string()).integer("num_hidden_layers", 1, INT32_MAX);
    const JsonObject config(root, (language / "config.json").string());
    const int select = config.integer_or("mm_vision_select_layer", -layers, layers, -2);
    options.tower_config["num_hidden_layers"] = select < 0 ? layers + 1 + select : select;
    if (const fs::path file = vision_tower / "preprocessor_config.json"; fs::exists(file)) {
        options.preprocessor = read_ordered(file);
    }
    options.tokenizer = language;
    options.language = language;
    options.vision_tower = vision_tower;
    return options;
}

InitialiseOptions options_of_checkpoint(const fs::path& checkpoint,
                                        const std::optional<fs::path>& vision_tower,
                                        const nlohmann::ordered_json& model) {
    const SafetensorsReader weights(checkpoint);
    const CheckpointConfig shape = read_checkpoint_config(checkpoint, vision_tower, weights);
    const VisionHparams& vision = shape.vision;
    InitialiseOptions options;
    options.config =
        nlohmann::ordered_json::parse(read_text_file(checkpoint / "config.json", uint64_t{1} << 24));
    options.tower_config = tower_fields(vision);
    options.preprocessor = {{"image_mean", vision.image_mean}, {"image_std", vision.image_std}};
    options.tokenizer = checkpoint;
    options.language = checkpoint;
    options.vision_tower = shape.tower_folder.empty() ? checkpoint : shape.tower_folder;
    put_over(model, options);
    return options;
}

namespace {

// Writes the configuration's files and reads them as the converter does.
CheckpointConfig write_configuration(const fs::path& out, const InitialiseOptions& options) {
    nlohmann::ordered_json config = options.config, tower = options.tower_config;
    config["mm_vision_tower"] = kTowerFolder;
    config["unfreeze_mm_vision_tower"] = true;  // the tower's weights inside the checkpoint count
    config["mm_projector_type"] = "mlp2x_gelu";
    config["mm_vision_select_layer"] = -1;  // the tower holds no layer that is never used
    write_text_file(out / "config.json", config.dump(2) + "\n");
    write_text_file(out / kTowerFolder / "config.json", tower.dump(2) + "\n");
    if (!options.preprocessor.is_null()) {
        write_text_file(out / kTowerFolder / "preprocessor_config.json", options.preprocessor.dump(2) + "\n");
    }
    const std::string nothing = empty_safetensors();
    const SafetensorsReader empty({reinterpret_cast<const uint8_t*>(nothing.data()), nothing.size()},
                                  "nothing");
    return read_checkpoint_config(out, {}, empty);
}

}  // namespace

void write_initial_checkpoint(const fs::path& out, const InitialiseOptions& options) {
    fs::path aside = out;
    aside += ".partial";
    std::error_code failure, ignored;
    fs::remove_all(aside, ignored);  // of a run that was killed
    try {
        copy_tokenizer(options.tokenizer, aside);
        const CheckpointConfig shape = write_configuration(aside, options);
        // Now, while the message can name the folder that was given.
        read_vocabulary(options.tokenizer, shape.language.n_vocab, shape.bos_id, shape.eos_ids);
        Parameters parameters(shape.vision, shape.language);
        std::vector<bool> taken(parameters.leaves().size(), false);
        Initialiser initialiser(shape.vision, shape.language, options);
        if (options.language) {
            take(*options.language, /*tower=*/false, initialiser, parameters, taken);
        }
        if (options.vision_tower) {
            take(*options.vision_tower, /*tower=*/true, initialiser, parameters, taken);
        }
        for (size_t i = 0; i < taken.size(); ++i) {
            if (!taken[i]) initialiser.fill(parameters.leaves()[i]);
        }
        parameters.save(aside / "model.safetensors");
        fs::rename(aside, out, failure);
        if (failure) throw_system("{}: cannot be renamed: {}", aside.string(), failure.message());
    } catch (...) {
        fs::remove_all(aside, ignored);
        throw;
    }
}

CheckpointConfig configuration_of(const InitialiseOptions& options) {
    std::string name = (fs::temp_directory_path() / "llava-mini-plan-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw_system("{}: cannot be made", name);
    std::error_code ignored;
    try {
        CheckpointConfig config = write_configuration(name, options);
        fs::remove_all(name, ignored);
        return config;
    } catch (...) {
        fs::remove_all(name, ignored);
        throw;
    }
}

}  // namespace llava_mini::trainer
