# A loop of integer, floating-point, string and hash work; tests/guest compute the same in Python.
use strict;
use warnings;

my ($state, $root, %last) = (1, 0.0);
for my $i (1 .. 500_000) {
    $state = ($state * 69_069 + 12_345) & 0xFFFFFFFF;
    $root += sqrt($i) if $state & 1;
    $last{$state % 97} = $i if $i % 50 == 0;
}
my $text = join ",", map { "$_=$last{$_}" } sort { $a <=> $b } keys %last;
printf "perl %d %.10f %d %s\n", $state, $root, length $text, substr $text, 0, 20;
