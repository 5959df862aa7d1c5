// Vocabularies of any size for synthetic models: valid for libllama, meaningless for people.
#pragma once

#include "convert/vocabulary.h"

namespace llava_mini {

/// A byte-level BPE in the manner of Llama 3: 256 bytes, merges of pairs and triples of them, and the 256
/// special tokens last, with Llama 3's conversation format. Needs n_vocab from 768 to about 16 million.
Vocabulary synth_byte_level_bpe(int n_vocab);

/// A SentencePiece BPE in the manner of Llama 2: unknown, begin, end, 256 bytes, characters, pairs and
/// triples, with LLaVA-v1.5's conversation format. Needs n_vocab from 512 to about 800 thousand.
Vocabulary synth_sentencepiece(int n_vocab);

/// Writes the vocabulary as a checkpoint's tokenizer.json and tokenizer_config.json, as a byte-level BPE has
/// them. Texts of the two files.
std::string tokenizer_json(const Vocabulary& vocabulary);
std::string tokenizer_config_json(const Vocabulary& vocabulary);

}  // namespace llava_mini
