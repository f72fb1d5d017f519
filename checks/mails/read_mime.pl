# Reads each file with Email::MIME; prints a line with a JSON object for each.
use strict;
use warnings;
use Email::MIME;
use JSON::PP;

my $json = JSON::PP->new->utf8->canonical;
for my $file (@ARGV) {
    open my $in, '<:raw', $file or die "$file: $!";
    my $mail = Email::MIME->new(do { local $/; <$in> });
    print $json->encode({
        file    => $file,
        type    => (split /;/, $mail->content_type)[0],
        headers => {map { lc $_ => $mail->header_str($_) } $mail->header_names},
        parts   => [map { {type => $_->content_type, text => $_->body_str} } $mail->subparts],
    }), "\n";
}
