"""The step-time benchmark's references: a hand-written loop and other libraries, each in an environment of its own."""
