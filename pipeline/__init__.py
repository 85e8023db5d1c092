"""Constitutional critique and revision, distilled round after round, measured in the bulk and at the tails."""
