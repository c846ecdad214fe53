// Writes the small bundle that the C ABI's tests read: make_bundle DIRECTORY.
#include "small_bundle.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  edge::testing::write_small_bundle(argv[1]);
  return ::testing::UnitTest::GetInstance()->Failed() ? 1 : 0;
}
