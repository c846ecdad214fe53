// The manifest: a hostile one is refused with a clear line; one that is accepted uses only safe paths that it lists.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "edge_runtime/manifest.h"
#include "fuzz.h"

namespace edge::fuzz {
namespace {

using Json = nlohmann::json;

void require_listed(const Json& manifest, const Json& path) {
  const auto text = path.get<std::string>();
  require(is_safe_path(text), "a path stays inside the bundle");
  require(manifest["files"].contains(text), "a path is listed");
}

void require_paths(const Json& manifest) {
  for (const auto& [path, entry] : manifest["files"].items()) {
    require(is_safe_path(path), "a listed path stays inside the bundle");
  }
  require_listed(manifest, manifest["state"]);
  require_listed(manifest, manifest["tokenizer"]["path"]);
  for (const Json& program : manifest["programs"]) {
    require_listed(manifest, program["path"]);
  }
  if (const Json& router = manifest["router"]; !router.is_null()) {
    require_listed(manifest, router["tree"]);
    for (const Json& embedder : router["embedders"]) {
      require_listed(manifest, embedder["path"]);
      require_listed(manifest, embedder["tokenizer"]);
    }
  }
  if (const Json& memory = manifest["memory"]; !memory.is_null()) {
    for (const Json& level : memory["levels"]) {
      require(!level["files"].empty(), "a level has a file");
      for (const Json& path : level["files"]) {
        require_listed(manifest, path);
      }
    }
  }
}

}  // namespace

Range json_range(Input input) { return {0, input.size()}; }

}  // namespace edge::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace edge::fuzz;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto status = edge::validate_manifest(text);
  if (!status) {
    require_clear(status.error(), "manifest.json");
    return 0;
  }
  const Json manifest = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  require(manifest.is_object(), "what is accepted is JSON");
  require_paths(manifest);
  require(edge::validate_manifest(manifest.dump()).has_value(), "written again it is accepted again");
  return 0;
}
