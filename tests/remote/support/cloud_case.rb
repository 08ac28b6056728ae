# frozen_string_literal: true

require_relative "s3_case"
require_relative "azurite_server"

module E2E
  # The same tests with Azure Blob Storage, as Azurite has it.
  module OnAzure
    def server_class = AzuriteServer

    def remote_url = "az://#{@bucket}/fleet"

    def wrong_key = shipping_env.merge("AZURE_STORAGE_ACCOUNT_KEY" => "d3JvbmctNzc=")

    def codes = %w[AuthorizationFailure ContainerNotFound]

    def name_of_upload(upload) = "fleet/#{upload["key"]}"
  end

  # The same tests with what object_store sends to Google Cloud Storage: its XML interface. No server that can be had here speaks all of it, but moto, which
  # answers S3, understands it, because Google made it after that of S3. It believes every checksum.
  module OnGoogle
    def self.missing? = MotoServer.missing?

    def server_class = MotoServer

    def remote_url = "gs://#{@bucket}/fleet"

    def shipping_env = super.merge("GOOGLE_BEARER_TOKEN" => "a-token")
  end
end
