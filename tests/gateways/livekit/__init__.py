"""The livekit gateway on a real HTTP listener, against fakes of its ports."""
