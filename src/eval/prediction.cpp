#include "eval/prediction.h"

#include <nlohmann/json.hpp>

#include "convert/json_input.h"
#include "core/error.h"
#include "core/file.h"
#include "core/hash.h"

namespace llava_mini::eval {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{4} << 30;

std::string answer_id(const std::string& text) {
    return hash_bytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()}).hex();
}

}  // namespace

std::string to_line(const Prediction& prediction, const std::string& model_id) {
    const nlohmann::ordered_json object = {
        {"question_id", prediction.question_id},
        {"prompt", prediction.prompt},
        {"text", prediction.text},
        {"answer_id", answer_id(model_id + '\0' + prediction.question_id + '\0' + prediction.text)},
        {"model_id", model_id},
        {"metadata", {{"answer", prediction.answer}, {"type", prediction.type}}}};
    return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::vector<Prediction> read_predictions(const std::filesystem::path& file, const std::string& model_id) {
    const std::string text = read_text_file(file, kMaxFileBytes);
    std::vector<Prediction> predictions;
    size_t start = 0;
    for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
        const std::string where = fmt::format("{}: line {}", file.string(), predictions.size() + 1);
        const nlohmann::json line = parse_json(std::string_view(text).substr(start, end - start), where);
        const JsonObject object(line, where);
        if (const std::string model = object.text("model_id"); model != model_id) {
            throw_input("{}: model_id: expected {}, found {}", where, printable(model_id), printable(model));
        }
        const auto metadata = object.object("metadata");
        if (!metadata) object.fail("metadata", "an object");
        predictions.push_back({object.text("question_id"), object.text("prompt"), object.text("text"),
                               metadata->text("answer"), metadata->text("type")});
        start = end + 1;
    }
    return predictions;
}

}  // namespace llava_mini::eval
