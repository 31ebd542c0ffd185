"""The external metrics of a release: figures of its groups of pods, for HorizontalPodAutoscalers to act on."""
