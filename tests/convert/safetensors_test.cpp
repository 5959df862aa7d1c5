#include "convert/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <functional>

#include "convert/tiny_checkpoint.h"
#include "support/error_text.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::error_text;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file of this header and this many bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
    std::string file(8, '\0');
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
    return file + header + std::string(data_bytes, '\0');
}

std::string with_size(uint64_t size, const std::string& rest) {
    std::string file(8, '\0');
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(size >> (8 * i));
    return file + rest;
}

SafetensorsReader read_bytes(const std::string& file) {
    return SafetensorsReader({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "bytes");
}

std::vector<float> floats(const SafetensorsReader& reader, const std::string& name) {
    const SafetensorsTensor& tensor = *reader.find(name);
    std::vector<float> values(tensor.bytes / 4);
    reader.read(tensor, 0, {reinterpret_cast<uint8_t*>(values.data()), tensor.bytes});
    return values;
}

TEST(Safetensors, ReadsTensorsOfOneFile) {
    const std::string file = test::safetensors_bytes({{"a", {"F32", {2, 2}, {1, 2, 3, 4}}},
                                                      {"b", {"BF16", {3}, {1, 2, 3}}},
                                                      {"c", {"I64", {}, {0}}},
                                                      {"d", {"F16", {0, 7}, {}}}});
    const SafetensorsReader reader = read_bytes(file);
    ASSERT_EQ(reader.tensors().size(), 4u);
    EXPECT_THAT(reader.find("a")->shape, ElementsAre(2, 2));
    EXPECT_THAT(floats(reader, "a"), ElementsAre(1, 2, 3, 4));
    EXPECT_EQ(reader.find("a")->type(), GGML_TYPE_F32);
    EXPECT_EQ(reader.find("b")->type(), GGML_TYPE_BF16);
    EXPECT_EQ(reader.find("b")->bytes, 6u);
    EXPECT_EQ(reader.find("c")->type(), GGML_TYPE_COUNT);
    EXPECT_EQ(reader.find("c")->elements(), 1);
    EXPECT_EQ(reader.find("d")->elements(), 0);
    EXPECT_EQ(reader.find("e"), nullptr);
    EXPECT_TRUE(reader.has_prefix("a"));
    EXPECT_FALSE(reader.has_prefix("aa"));
}

TEST(Safetensors, ReadsOnlyInsideATensor) {
    const std::string file =
        test::safetensors_bytes({{"a", {"F32", {2}, {1, 2}}}, {"b", {"F32", {2}, {3, 4}}}});
    const SafetensorsReader reader = read_bytes(file);
    uint8_t bytes[8];
    reader.read(*reader.find("a"), 4, std::span(bytes, 4));
    float value;
    std::memcpy(&value, bytes, 4);
    EXPECT_EQ(value, 2.0f);
    EXPECT_THROW(reader.read(*reader.find("a"), 4, std::span(bytes, 8)), Error);
    EXPECT_THROW(reader.read(*reader.find("a"), UINT64_MAX, std::span(bytes, 4)), Error);
}

TEST(Safetensors, WritesWhatItReads) {
    const test::TempDir dir;
    const float a[] = {1, 2, 3, 4, 5, 6};
    SafetensorsWriter writer(dir / "model.safetensors",
                             {{"a", GGML_TYPE_F32, {2, 2}}, {"b", GGML_TYPE_F32, {2}}});
    writer.write({reinterpret_cast<const uint8_t*>(a), 4});
    writer.write({reinterpret_cast<const uint8_t*>(a + 1), 20});
    EXPECT_FALSE(std::filesystem::exists(dir / "model.safetensors"));
    writer.commit();
    const SafetensorsReader reader(dir.path());
    EXPECT_THAT(floats(reader, "a"), ElementsAre(1, 2, 3, 4));
    EXPECT_THAT(floats(reader, "b"), ElementsAre(5, 6));

    SafetensorsWriter incomplete(dir / "other.safetensors", {{"a", GGML_TYPE_F32, {2}}});
    EXPECT_THROW(incomplete.commit(), Error);
}

struct Malformed {
    const char* name;
    std::string file;
    const char* expected;
};

std::vector<Malformed> malformed_files() {
    const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
    std::string deep = R"({"a":)";
    deep += std::string(100000, '[');
    return {
        {"empty", "", "only 0 bytes"},
        {"seven_bytes", "1234567", "only 7 bytes"},
        {"header_beyond_end", with_size(1000, "{}"), "truncated"},
        {"header_size_overflow", with_size(UINT64_MAX, "{}"), "at most"},
        {"header_huge", with_size(100'000'001, "{}"), "at most"},
        {"not_json", file_of("{\"a\": nonsense}", 0), "not valid JSON"},
        {"not_utf8", file_of("{\"\xff\": 1}", 0), "not valid JSON"},
        {"cut_json", file_of(good.substr(0, 20), 8), "not valid JSON"},
        {"text_after_json", file_of(good + "x", 8), "not valid JSON"},
        {"array", file_of("[1]", 0), "expected an object"},
        {"number", file_of("17", 0), "expected an object"},
        {"tensor_is_number", file_of(R"({"a":5})", 0), "expected an object, found a number"},
        {"deep_nesting", file_of(deep, 0), "expected an object, found an array"},
        {"data_cut", file_of(good, 7), "truncated"},
        {"data_left_over", file_of(good, 9), "9 bytes of data, but the tensors take 8"},
        {"no_dtype", file_of(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8), "expected dtype, shape"},
        {"no_shape", file_of(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8), "expected dtype, shape"},
        {"unknown_field", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8),
         "unknown field"},
        {"field_twice", file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
         "stands twice"},
        {"unknown_dtype", file_of(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", 8),
         "unknown dtype \"F31\""},
        {"dtype_is_number", file_of(R"({"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}})", 8),
         "dtype: unexpected"},
        {"negative_shape", file_of(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8),
         "found a negative number"},
        {"fraction_in_shape", file_of(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8),
         "found a fraction"},
        {"nested_shape", file_of(R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8),
         "found an array"},
        {"too_many_dimensions",
         file_of(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}})", 8),
         "too many numbers"},
        {"one_offset", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8),
         "expected two data_offsets"},
        {"three_offsets", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}})", 8),
         "too many numbers"},
        {"offsets_swapped", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
         "do not lie"},
        {"offsets_beyond_end", file_of(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 8),
         "do not lie"},
        {"offset_overflow",
         file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551615,8]}})", 8),
         "do not lie"},
        {"number_beyond_64_bits",
         file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,28446744073709551615]}})", 8),
         "a fraction"},
        {"size_differs", file_of(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8),
         "takes 12 bytes"},
        {"shape_overflow",
         file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
         "too large"},
        {"shape_overflow_to_size",
         file_of(R"({"a":{"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]}})", 8),
         "too large"},
        {"dimension_beyond_63_bits",
         file_of(R"({"a":{"dtype":"U8","shape":[0,9223372036854775808],"data_offsets":[0,0]}})", 0),
         "too large"},
        {"overlap",
         file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                 R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                 12),
         "overlap"},
        {"same_place",
         file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                 R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                 8),
         "overlap"},
        {"gap", file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "a gap"},
        {"tensor_twice",
         file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                 R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                 8),
         "stands twice"},
        {"metadata_is_number", file_of(R"({"__metadata__":{"a":1}})", 0), "expected strings"},
        {"line_break_in_name",
         file_of("{\"a\\nb\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8), "a?b"},
    };
}

class MalformedSafetensors : public ::testing::TestWithParam<Malformed> {};

TEST_P(MalformedSafetensors, IsRejectedWithOneClearLine) {
    // A copy of exact size, so that the address sanitizer sees any read beyond it.
    const std::vector<char> copy(GetParam().file.begin(), GetParam().file.end());
    const std::string text = error_text([&] {
        SafetensorsReader({reinterpret_cast<const uint8_t*>(copy.data()), copy.size()}, "bytes");
    });
    EXPECT_THAT(text, HasSubstr(GetParam().expected));
    EXPECT_THAT(text, ::testing::StartsWith("bytes: "));
}

INSTANTIATE_TEST_SUITE_P(Table, MalformedSafetensors, ::testing::ValuesIn(malformed_files()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Safetensors, EveryTruncationIsRejected) {
    const std::string file = test::safetensors_bytes({{"a", {"F32", {2}, {1, 2}}}, {"b", {"F16", {1}, {3}}}});
    for (size_t size = 0; size < file.size(); ++size) {
        EXPECT_THROW(read_bytes(file.substr(0, size)), Error) << size << " bytes";
    }
    EXPECT_NO_THROW(read_bytes(file));
}

struct BadFolder {
    const char* name;
    std::function<void(const test::TempDir&)> fill;
    const char* expected;
};

class MalformedFolder : public ::testing::TestWithParam<BadFolder> {};

TEST_P(MalformedFolder, IsRejectedWithOneClearLine) {
    const test::TempDir dir;
    GetParam().fill(dir);
    EXPECT_THAT(error_text([&] { SafetensorsReader reader(dir.path()); }), HasSubstr(GetParam().expected));
}

void write_index(const test::TempDir& dir, const std::string& shard) {
    dir.write("model.safetensors.index.json", R"({"weight_map":{"a":")" + shard + R"("}})");
}

const std::map<std::string, test::TinyTensor> kOne = {{"a", {"F32", {1}, {1}}}};
const std::map<std::string, test::TinyTensor> kOther = {{"b", {"F32", {1}, {1}}}};

INSTANTIATE_TEST_SUITE_P(
    Table, MalformedFolder,
    ::testing::Values(
        BadFolder{"empty", [](const test::TempDir&) {}, "found 0 index files and 0 safetensors files"},
        BadFolder{"torch_files", [](const test::TempDir& dir) { dir.write("pytorch_model.bin", ""); },
                  "PyTorch's .bin files are not read"},
        BadFolder{"two_files_without_index",
                  [](const test::TempDir& dir) {
                      dir.write("x.safetensors", test::safetensors_bytes(kOne));
                      dir.write("y.safetensors", test::safetensors_bytes(kOther));
                  },
                  "found 0 index files and 2 safetensors files"},
        BadFolder{"shard_missing", [](const test::TempDir& dir) { write_index(dir, "x.safetensors"); },
                  "x.safetensors: cannot open"},
        BadFolder{"shard_above", [](const test::TempDir& dir) { write_index(dir, "../x.safetensors"); },
                  "a file in the same folder"},
        BadFolder{"shard_absolute", [](const test::TempDir& dir) { write_index(dir, "/etc/passwd"); },
                  "a file in the same folder"},
        BadFolder{"shard_is_parent", [](const test::TempDir& dir) { write_index(dir, ".."); },
                  "a file in the same folder"},
        BadFolder{"shard_is_number",
                  [](const test::TempDir& dir) {
                      dir.write("model.safetensors.index.json", R"({"weight_map":{"a":3}})");
                  },
                  "a file in the same folder"},
        BadFolder{"no_weight_map",
                  [](const test::TempDir& dir) { dir.write("model.safetensors.index.json", "{}"); },
                  "the field weight_map is missing"},
        BadFolder{"tensor_in_no_shard",
                  [](const test::TempDir& dir) {
                      write_index(dir, "x.safetensors");
                      dir.write("x.safetensors", test::safetensors_bytes(kOther));
                  },
                  "'a' is not in x.safetensors"},
        BadFolder{"tensor_in_two_shards",
                  [](const test::TempDir& dir) {
                      dir.write("model.safetensors.index.json",
                                R"({"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})");
                      dir.write("x.safetensors", test::safetensors_bytes(kOne));
                      dir.write("y.safetensors", test::safetensors_bytes(kOne));
                  },
                  "is also in"},
        BadFolder{
            "file_is_folder",
            [](const test::TempDir& dir) { std::filesystem::create_directory(dir / "model.safetensors"); },
            "expected a regular file, found a directory"},
        BadFolder{"file_is_fifo",
                  [](const test::TempDir& dir) { mkfifo((dir / "model.safetensors").c_str(), 0600); },
                  "expected a regular file, found a named pipe"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace llava_mini
