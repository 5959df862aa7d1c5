#include "core/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/file.h"
#include "llava_mini/error.hpp"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using namespace std::string_literals;

std::string npy(const std::string& header, const std::string& data = "", char version = 1) {
    std::string file = "\x93NUMPY"s + version + '\0';
    for (int i = 0; i < (version == 1 ? 2 : 4); ++i)
        file += static_cast<char>(header.size() >> (8 * i) & 0xFF);
    return file + header + data;
}

const std::string kTwoFloats = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";

// The bytes are those of numpy.save: a recorded array, read and written again, is the same file.
TEST(WriteNpy, WritesTheBytesOfNumpy) {
    const TempDir dir;
    const auto recorded = test::golden_path("preprocess/photo_640x480/pixel_values_pad.npy");
    const NpyArray array = read_npy(recorded);
    write_npy(dir / "copy.npy", array.shape, array.as_float());
    EXPECT_TRUE(read_file(dir / "copy.npy", 1 << 24) == read_file(recorded, 1 << 24));
}

TEST(WriteNpy, PadsTheHeaderAsNumpyDoes) {
    const TempDir dir;
    // Header texts as numpy.save of NumPy 1.26 wrote them: 64 divides where the data starts.
    write_npy(dir / "scalar.npy", {}, std::vector<float>{1});
    write_npy(dir / "one.npy", std::vector<int64_t>{3}, std::vector<int64_t>{1, 2, 3});
    write_npy(dir / "five.npy", std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1, 1, 1}, std::vector<float>{1});
    const auto header = [&](const std::string& name, size_t length) {
        const std::string file = read_text_file(dir / name, 1 << 20);
        EXPECT_EQ(static_cast<unsigned char>(file[8]) + 10u, length);
        return file.substr(10, length - 10);
    };
    EXPECT_EQ(header("scalar.npy", 128),
              "{'descr': '<f4', 'fortran_order': False, 'shape': (), }" + std::string(62, ' ') + "\n");
    EXPECT_EQ(header("one.npy", 128),
              "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }" + std::string(60, ' ') + "\n");
    EXPECT_EQ(header("five.npy", 128),
              "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 1), }" +
                  std::string(37, ' ') + "\n");
}

TEST(WriteNpy, RefusesAShapeThatDoesNotFit) {
    const TempDir dir;
    EXPECT_THROW(write_npy(dir / "a.npy", std::vector<int64_t>{3}, std::vector<float>{1, 2}), Error);
    EXPECT_FALSE(std::filesystem::exists(dir / "a.npy"));
}

TEST(ReadNpy, ConvertsEveryType) {
    const TempDir dir;
    const auto read = [&](const std::string& dtype, const std::string& data) {
        const std::string header = "{'descr': '" + dtype + "', 'fortran_order': False, 'shape': (2,), }";
        return read_npy(dir.write("a.npy", npy(header, data)));
    };
    const std::vector<int64_t> expected{1, 2};
    EXPECT_EQ(read("<f4", "\0\0\x80\x3f\0\0\0\x40"s).as_int64(), expected);
    EXPECT_EQ(read("<f8", "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\x40"s).as_int64(), expected);
    EXPECT_EQ(read("<i4", "\1\0\0\0\2\0\0\0"s).as_int64(), expected);
    EXPECT_EQ(read("<i8", "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0"s).as_int64(), expected);
    EXPECT_EQ(read("|u1", "\1\2"s).as_int64(), expected);
    EXPECT_EQ(read("|b1", "\1\0"s).as_float(), (std::vector<float>{1, 0}));
}

TEST(ReadNpy, ReadsShapesOfAnyRankAndVersionTwo) {
    const TempDir dir;
    const std::string scalar = "{'descr': '|u1', 'fortran_order': False, 'shape': (), }\n";
    EXPECT_EQ(read_npy(dir.write("a.npy", npy(scalar, "\7"))).size(), 1);
    const std::string empty = "{'shape': (3, 0, 2), 'fortran_order': False, 'descr': '|u1'}";
    EXPECT_EQ(read_npy(dir.write("a.npy", npy(empty))).shape, (std::vector<int64_t>{3, 0, 2}));
    EXPECT_EQ(read_npy(dir.write("a.npy", npy(kTwoFloats, std::string(8, '\0'), 2))).size(), 2);
}

struct MalformedNpy {
    const char* name;
    std::string content;
    const char* expected;
};

class MalformedNpyFiles : public ::testing::TestWithParam<MalformedNpy> {};

TEST_P(MalformedNpyFiles, GiveOneClearLine) {
    const TempDir dir;
    try {
        read_npy(dir.write("bad.npy", GetParam().content));
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInput);
        EXPECT_THAT(error.what(), AllOf(HasSubstr("bad.npy: "), HasSubstr(GetParam().expected)));
    }
}

std::string header_with(const std::string& shape) {
    return npy("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }");
}

const MalformedNpy kMalformed[] = {
    {"Empty", "", "too short"},
    {"NoMagic", std::string(64, 'x'), "not a .npy file"},
    {"Version3", npy(kTwoFloats, "12345678", 3), "version 1 or 2"},
    {"HeaderBehindTheEnd", npy(kTwoFloats).substr(0, 20), "bad .npy header: 58 bytes announced"},
    {"DataMissing", npy(kTwoFloats, "1234567"), "expected 8 bytes of data for shape (2) of '<f4', found 7"},
    {"DataTooLong", npy(kTwoFloats, "123456789"), "found 9"},
    {"FortranOrder", npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", "12345678"),
     "Fortran order"},
    {"UnknownType", npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "12345678"),
     "dtype '<c8'"},
    {"Pickle", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "12345678"), "dtype '|O'"},
    {"MissingKey", npy("{'descr': '<f4', 'fortran_order': False, }"), "is missing"},
    {"UnknownKey", npy("{'descr': '<f4', 'x': 1}"), "unknown key 'x'"},
    {"NoDictionary", npy("[1, 2]        "), "expected '{'"},
    {"OpenString", npy("{'descr: <f4, }"), "a string does not end"},
    {"NegativeDimension", header_with("(-2,)"), "expected a number"},
    {"HugeDimension", header_with("(99999999999999999999,)"), "a dimension is too large"},
    {"OverflowingShape", header_with("(4294967296, 4294967296, 4294967296)"), "too large"},
    {"ShapeDoesNotEnd", header_with("(2, 3"), "bad .npy header"},
    {"ManyDimensions", header_with("(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)"),
     "too many dimensions"},
};

INSTANTIATE_TEST_SUITE_P(Table, MalformedNpyFiles, ::testing::ValuesIn(kMalformed),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace llava_mini
