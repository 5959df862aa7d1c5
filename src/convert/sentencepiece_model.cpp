#include "convert/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "convert/json_input.h"
#include "core/error.h"

namespace llava_mini {
namespace {

// Field numbers of sentencepiece_model.proto.
enum ModelField { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3 };
enum PieceField { kPieceText = 1, kPieceScore = 2, kPieceType = 3 };
enum TrainerField {
    kModelType = 3,
    kSuffixWhitespace = 24,
    kByteFallback = 35,
    kUnkId = 40,
    kBosId = 41,
    kEosId = 42,
    kPadId = 43
};
enum NormalizerField {
    kCharsMap = 2,
    kAddDummyPrefix = 3,
    kRemoveExtraWhitespaces = 4,
    kEscapeWhitespaces = 5
};
constexpr uint64_t kBpe = 2;  // TrainerSpec.ModelType
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
    uint32_t number;
    WireType type;
    uint64_t value;                  // kVarint, kFixed32, kFixed64
    std::span<const uint8_t> bytes;  // kBytes
};

// Fields of one message, in order.
class WireReader {
  public:
    WireReader(std::span<const uint8_t> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

    bool next(Field& field) {
        if (position_ == bytes_.size()) return false;
        const uint64_t tag = varint();
        field = {static_cast<uint32_t>(tag >> 3), static_cast<WireType>(tag & 7), 0, {}};
        switch (field.type) {
            case kVarint:
                field.value = varint();
                break;
            case kFixed64:
                field.value = fixed(8);
                break;
            case kBytes: {
                const uint64_t length = varint();
                if (length > bytes_.size() - position_) fail();
                field.bytes = bytes_.subspan(position_, length);
                position_ += length;
                break;
            }
            case kFixed32:
                field.value = fixed(4);
                break;
            default:
                fail();
        }
        return true;
    }

  private:
    [[noreturn]] void fail() const {
        throw_input("{}: not a SentencePiece model (malformed or truncated)", file_);
    }

    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (position_ == bytes_.size()) fail();
            const uint8_t byte = bytes_[position_++];
            value |= uint64_t{byte & 0x7fu} << shift;
            if (byte < 0x80) return value;
        }
        fail();
    }

    uint64_t fixed(size_t size) {
        if (size > bytes_.size() - position_) fail();
        uint64_t value = 0;
        for (size_t i = 0; i < size; ++i) value |= uint64_t{bytes_[position_++]} << (8 * i);
        return value;
    }

    std::span<const uint8_t> bytes_;
    const std::string& file_;
    size_t position_ = 0;
};

void read_piece(std::span<const uint8_t> bytes, const std::string& file, Vocabulary& out) {
    std::string text;
    float score = 0.0f;
    uint64_t type = static_cast<uint64_t>(TokenType::kNormal);
    WireReader reader(bytes, file);
    for (Field field; reader.next(field);) {
        if (field.number == kPieceText && field.type == kBytes)
            text.assign(field.bytes.begin(), field.bytes.end());
        if (field.number == kPieceScore && field.type == kFixed32) {
            score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
        }
        if (field.number == kPieceType && field.type == kVarint) type = field.value;
    }
    if (text.empty() || text.find('\0') != std::string::npos || !std::isfinite(score) || type < 1 ||
        type > 6) {
        throw_input(
            "{}: piece {} ('{}'): expected a text, a finite score and a type from 1 to 6, found score {} and "
            "type {}",
            file, out.size(), printable(text), score, type);
    }
    out.tokens.push_back(text);
    out.scores.push_back(score);
    out.types.push_back(static_cast<TokenType>(type));
}

struct TrainerSpec {
    uint64_t model_type = 1;  // unigram
    int64_t unk = 0, bos = 1, eos = 2, pad = -1;
};

TrainerSpec read_trainer_spec(std::span<const uint8_t> bytes, const std::string& file) {
    TrainerSpec spec;
    WireReader reader(bytes, file);
    for (Field field; reader.next(field);) {
        if (field.type != kVarint) continue;
        const auto id = static_cast<int64_t>(static_cast<int32_t>(field.value));
        switch (field.number) {
            case kModelType:
                spec.model_type = field.value;
                break;
            case kSuffixWhitespace:
                if (field.value != 0) throw_input("{}: treat_whitespace_as_suffix is not supported", file);
                break;
            case kUnkId:
                spec.unk = id;
                break;
            case kBosId:
                spec.bos = id;
                break;
            case kEosId:
                spec.eos = id;
                break;
            case kPadId:
                spec.pad = id;
                break;
        }
    }
    return spec;
}

// Returns add_dummy_prefix.
bool read_normalizer_spec(std::span<const uint8_t> bytes, const std::string& file) {
    bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true, maps = false;
    WireReader reader(bytes, file);
    for (Field field; reader.next(field);) {
        if (field.number == kCharsMap && field.type == kBytes) maps = !field.bytes.empty();
        if (field.type != kVarint) continue;
        if (field.number == kAddDummyPrefix) add_dummy_prefix = field.value != 0;
        if (field.number == kRemoveExtraWhitespaces) remove_extra_whitespaces = field.value != 0;
        if (field.number == kEscapeWhitespaces) escape_whitespaces = field.value != 0;
    }
    if (maps || remove_extra_whitespaces || !escape_whitespaces) {
        throw_input(
            "{}: normalizer: expected one that leaves text as it is (identity, with spaces kept and "
            "escaped), as Llama's does",
            file);
    }
    return add_dummy_prefix;
}

void put_varint(std::string& out, uint64_t value) {
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
    out += static_cast<char>(value);
}

void put_number(std::string& out, uint32_t field, int64_t value) {
    put_varint(out, field << 3 | kVarint);
    put_varint(out, static_cast<uint64_t>(value));
}

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
    put_varint(out, field << 3 | kBytes);
    put_varint(out, bytes.size());
    out += bytes;
}

}  // namespace

Vocabulary read_sentencepiece_model(std::span<const uint8_t> bytes, const std::string& file) {
    Vocabulary out;
    out.model = "llama";
    out.pre = "default";
    TrainerSpec trainer;
    bool add_dummy_prefix = true, has_normalizer = false;
    WireReader reader(bytes, file);
    for (Field field; reader.next(field);) {
        if (field.type != kBytes) continue;
        if (field.number == kPieces) read_piece(field.bytes, file, out);
        if (field.number == kTrainerSpec) trainer = read_trainer_spec(field.bytes, file);
        if (field.number == kNormalizerSpec) {
            add_dummy_prefix = read_normalizer_spec(field.bytes, file);
            has_normalizer = true;
        }
    }
    if (out.tokens.empty() || !has_normalizer) throw_input("{}: not a SentencePiece model (no pieces)", file);
    if (trainer.model_type != kBpe) throw_input("{}: expected a SentencePiece model of type BPE", file);

    std::unordered_set<std::string> seen;
    for (const std::string& token : out.tokens) {
        if (!seen.insert(token).second)
            throw_input("{}: the piece '{}' stands twice", file, printable(token));
    }
    // Without a token for each byte libllama has no way to write unknown characters.
    for (int byte = 0; byte < 256; ++byte) {
        if (!seen.contains(fmt::format("<0x{:02X}>", byte))) {
            throw_input("{}: the piece <0x{:02X}> is missing: a model without byte fallback", file, byte);
        }
    }
    const auto special = [&](int64_t id) {
        return id >= 0 && id < out.size() ? std::optional(static_cast<int>(id)) : std::nullopt;
    };
    out.unknown = special(trainer.unk);
    out.bos = special(trainer.bos);
    out.eos = special(trainer.eos);
    out.pad = special(trainer.pad);
    out.add_space_prefix = add_dummy_prefix;
    return out;
}

std::string write_sentencepiece_model(const Vocabulary& vocabulary) {
    std::string model;
    for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
        std::string piece;
        put_bytes(piece, kPieceText, vocabulary.tokens[i]);
        put_varint(piece, kPieceScore << 3 | kFixed32);
        const auto score = std::bit_cast<uint32_t>(vocabulary.scores[i]);
        for (int shift = 0; shift < 32; shift += 8) piece += static_cast<char>(score >> shift);
        put_number(piece, kPieceType, static_cast<int64_t>(vocabulary.types[i]));
        put_bytes(model, kPieces, piece);
    }
    std::string trainer;
    put_number(trainer, kModelType, kBpe);
    put_number(trainer, kByteFallback, 1);
    put_number(trainer, kUnkId, vocabulary.unknown.value_or(-1));
    put_number(trainer, kBosId, vocabulary.bos.value_or(-1));
    put_number(trainer, kEosId, vocabulary.eos.value_or(-1));
    put_number(trainer, kPadId, vocabulary.pad.value_or(-1));
    put_bytes(model, kTrainerSpec, trainer);
    std::string normalizer;
    put_number(normalizer, kAddDummyPrefix, vocabulary.add_space_prefix.value_or(true) ? 1 : 0);
    put_number(normalizer, kRemoveExtraWhitespaces, 0);
    put_number(normalizer, kEscapeWhitespaces, 1);
    put_bytes(model, kNormalizerSpec, normalizer);
    return model;
}

}  // namespace llava_mini
