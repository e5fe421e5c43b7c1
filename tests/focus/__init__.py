"""One task per conference, over fakes of the ports."""
