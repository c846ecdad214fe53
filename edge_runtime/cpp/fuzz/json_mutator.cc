// Mutates the JSON of an input as JSON. Random bytes seldom leave it JSON, and what is no JSON tests one line of code.
#include <algorithm>
#include <array>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "fuzz.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace edge::fuzz {
namespace {

using Json = nlohmann::ordered_json;  // keeps the order, so that a mutation changes one place of the text
using Random = std::minstd_rand;

constexpr std::size_t kLongestText = 64;

std::size_t below(Random& random, std::size_t count) { return random() % count; }

// Limits, their neighbours and what fits no key.
Json interesting(Random& random) {
  static const std::array<const char*, 32> texts = {"0",
                                                    "1",
                                                    "-1",
                                                    "-0",
                                                    "31",
                                                    "32",
                                                    "255",
                                                    "256",
                                                    "65536",
                                                    "1048576",
                                                    "1048577",
                                                    "2147483647",
                                                    "2147483648",
                                                    "4294967296",
                                                    "4611686018427387904",
                                                    "9223372036854775807",
                                                    "18446744073709551615",
                                                    "18446744073709551616",
                                                    "1.0",
                                                    "1e308",
                                                    "null",
                                                    "true",
                                                    "[]",
                                                    "{}",
                                                    "\"\"",
                                                    "\"0\"",
                                                    "\"ffn\"",
                                                    "\"../x\"",
                                                    "\"[0]\"",
                                                    "[0,1]",
                                                    "\"18446744073709551615\"",
                                                    "\"4294967296\""};
  return Json::parse(texts[below(random, texts.size())]);
}

void collect(Json& json, std::vector<Json*>& nodes) {
  nodes.push_back(&json);
  if (json.is_structured()) {
    for (Json& child : json) {
      collect(child, nodes);
    }
  }
}

void mutate(Json& root, Random& random);

void mutate_text(Json& node, Random& random) {
  auto text = node.get<std::string>();
  // Metadata hold lists and numbers as texts.
  Json inner = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!inner.is_discarded() && below(random, 4) != 0) {
    mutate(inner, random);
    node = inner.dump(-1, ' ', false, Json::error_handler_t::replace);
    return;
  }
  std::size_t size = std::min(text.size(), kLongestText);
  text.resize(kLongestText);
  size = LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(text.data()), size, kLongestText);
  node = text.substr(0, size);
}

void mutate_number(Json& node, Random& random) {
  if (!node.is_number_unsigned()) {
    node = interesting(random);
    return;
  }
  const auto value = node.get<std::uint64_t>();
  const std::array<std::uint64_t, 6> near = {value + 1, value - 1, value * 2,
                                             value / 2, ~value,    value ^ (std::uint64_t{1} << below(random, 64))};
  node = near[below(random, near.size())];
}

void mutate_children(Json& node, Random& random) {
  if (node.empty()) {
    node = interesting(random);
    return;
  }
  const auto child = std::next(node.begin(), static_cast<std::ptrdiff_t>(below(random, node.size())));
  if (below(random, 2) == 0) {
    node.erase(child);
  } else if (node.is_array()) {
    node.push_back(Json(*child));
  } else {
    node[child.key() + "x"] = Json(*child);
  }
}

// One change at a random place.
void mutate(Json& root, Random& random) {
  std::vector<Json*> nodes;
  collect(root, nodes);
  Json& node = *nodes[below(random, nodes.size())];
  switch (below(random, 8)) {
    case 0:
      node = interesting(random);
      return;
    case 1:
      node = Json(*nodes[below(random, nodes.size())]);
      return;
    default:
      break;
  }
  if (node.is_string()) {
    mutate_text(node, random);
  } else if (node.is_structured()) {
    mutate_children(node, random);
  } else {
    mutate_number(node, random);
  }
}

}  // namespace
}  // namespace edge::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  using namespace edge::fuzz;
  Random random(seed);
  const Range range = json_range({data, size});
  const auto* const bytes = reinterpret_cast<const char*>(data);
  Json json = Json::parse(bytes + range.begin, bytes + range.end, nullptr, /*allow_exceptions=*/false);
  // A quarter goes to everything else: what is no JSON, the flags, the tables.
  if (json.is_discarded() || below(random, 4) == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  for (std::size_t changes = 1 + below(random, 3); changes > 0; --changes) {
    mutate(json, random);
  }
  const std::string text = std::string(bytes, range.begin) + json.dump(-1, ' ', false, Json::error_handler_t::replace) +
                           std::string(bytes + range.end, size - range.end);
  if (text.size() > max_size) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  std::copy(text.begin(), text.end(), data);
  return text.size();
}
