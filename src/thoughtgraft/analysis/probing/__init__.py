"""What can be read from thoughts: probes with their controls, maps, similarity and components, on arrays alone."""
