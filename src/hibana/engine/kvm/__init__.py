"""CHAPTER 7a: the kvm engine."""
