// tokenizer.json: a hostile one is refused with a clear line; one that is accepted gives ids of its vocabulary, and
// texts for them.
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "edge_runtime/tokenizer.h"
#include "fuzz.h"

namespace edge::fuzz {

Range json_range(Input input) { return {0, input.size()}; }

}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edge::fuzz;
  const auto tokenizer =
      edge::Tokenizer::parse(std::string_view(reinterpret_cast<const char*>(data), size), "tokenizer.json");
  if (!tokenizer) {
    require_clear(tokenizer.error(), "tokenizer.json");
    return 0;
  }
  constexpr std::array<std::string_view, 4> kTexts = {"", " the  on\n<|end|> 1234", "\xC3\xA9\xF0\x9F\x98\x80\xFF",
                                                      "a\xCC\x81 \xE2\x96\x81x"};
  for (const std::string_view text : kTexts) {
    const auto ids = tokenizer->encode(text);
    if (!ids) {
      require_clear(ids.error(), "tokenizer.json");
      continue;
    }
    (void)tokenizer->decode(*ids);
    edge::TextStream stream(*tokenizer, /*follows=*/false);
    for (const std::uint32_t id : *ids) (void)stream.push(id);
    (void)stream.flush();
  }
  (void)tokenizer->decode(std::vector<std::uint32_t>{0, 0xFFFFFFFF, 1});
  return 0;
}
