# Verifies each file's DKIM signature with Mail::DKIM; the key's record is an argument, so no DNS is used.
# Prints, separated by tabs: file, result.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS;

package GivenRecord {
    sub new { my ($class, %given) = @_; return bless {%given}, $class }
    sub errorstring { return 'NOERROR' }

    sub send {
        my ($self, $name, $type) = @_;
        my $answer = Net::DNS::Packet->new($name, $type);
        $answer->header->rcode('NOERROR');
        $answer->push(answer => Net::DNS::RR->new(
            owner => $name, type => 'TXT', txtdata => [unpack '(a255)*', $self->{record}],
        )) if $type eq 'TXT' && $name eq $self->{name};
        return $answer;
    }
}

package main;

my ($name, $record, @files) = @ARGV;
Mail::DKIM::DNS::resolver(GivenRecord->new(name => $name, record => $record));

for my $file (@files) {
    open my $in, '<:raw', $file or die "$file: $!";
    my $verifier = Mail::DKIM::Verifier->new;
    $verifier->PRINT(do { local $/; <$in> });
    $verifier->CLOSE;
    (my $result = $verifier->result_detail) =~ s/\s+/ /g;
    print "$file\t$result\n";
}
